"""The top-k cache: what it holds, kills, and what it refuses."""

import filecmp
import os
import shutil
import signal
from copy import deepcopy
from dataclasses import replace

import forked
import pytest
import tiny
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from waiting import wait_until

from helpers import CourseError, logit_cache, losses
from helpers.chat import encode_traces
from helpers.files.cache import METADATA
from helpers.logit_cache import LogitCache, write_cache
from helpers.models import Loaded

COUNT, K, LENGTH = 7, 5, 320
OPTIONS = {"max_length": LENGTH, "k": K, "batch_size": 2}
CLOSE = {"atol": 1e-3, "rtol": 1e-3}  # float16


@pytest.fixture(autouse=True, scope="module")
def small_shards():
    """Seven rows in shards of 3, 3 and 1."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(logit_cache, "SHARD_ROWS", 3)
        yield


def write(folder, *, traces=None, teacher=None, **changes):
    options = {"tokenizer": tiny.tokenizer(tiny.SMALL)} | OPTIONS | changes
    asked = traces or tiny.traces(COUNT), teacher or tiny.teacher()
    return write_cache(*asked, folder, **options)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A cache that the tests only read."""
    return write(tmp_path_factory.mktemp("cache") / "made")


@pytest.fixture
def copy(made, tmp_path):
    """A cache that a test may break."""
    return shutil.copytree(made.folder, tmp_path / "copy")


def rows():
    tokenizer = tiny.tokenizer(tiny.SMALL)
    return encode_traces(tiny.traces(COUNT), tokenizer, max_length=LENGTH)[0]


def teacher_logits(row):
    """The teacher's own logits at the trained positions, padding cut off."""
    ids, labels = (torch.tensor([row[k]]) for k in ("input_ids", "labels"))
    with torch.no_grad():
        logits = tiny.teacher().model(input_ids=ids).logits
    logits, _, mask = losses.shift_for_next_token(logits, labels)
    return logits[mask][:, : len(tiny.teacher().tokenizer)]


def files(folder):
    """Every file's content, and when it was written last."""
    paths = folder.iterdir()
    return {p.name: (p.read_bytes(), p.stat().st_mtime_ns) for p in paths}


def compare_shards(first, second):
    names = [path.name for path in LogitCache(second).paths]
    assert filecmp.cmpfiles(first, second, names, shallow=False)[0] == names


def test_cache_holds_the_teachers_own_log_probabilities(made):
    """From the guess of the first answer token to that of the turn's end."""
    assert len(made) == COUNT
    for number, row in enumerate(rows()):
        ids, logprobs = made.row(number)
        expected = teacher_logits(row).log_softmax(-1)
        first = next(i for i, t in enumerate(row["labels"]) if t != -100)
        assert len(ids) == len(row["labels"]) - first
        assert (ids.dtype, logprobs.dtype) == (torch.int64, torch.float32)
        torch.testing.assert_close(logprobs, expected.gather(-1, ids), **CLOSE)
        torch.testing.assert_close(logprobs, expected.topk(K)[0], **CLOSE)
        assert torch.equal(ids[:, 0], expected.argmax(-1))


def test_cache_says_what_it_was_made_from_and_how_large_it_is(made):
    assert made.settings["teacher"] == tiny.TEACHER
    assert made.settings["vocabulary"] == len(tiny.teacher().tokenizer)
    # five ids of 2 bytes, five values of 2, and a little for headers
    assert K * (2 + 2) < made.bytes_per_token < K * (2 + 2) + 5
    for path in made.paths:  # no path of this machine goes along
        assert str(made.folder.parent).encode() not in path.read_bytes()


def test_logit_cache_check_rows_takes_its_own_rows_alone(made, copy):
    """What a trainer asks before it trusts a cache."""
    made.check_rows(rows())
    made.check_rows(rows().add_column("soft_start", [9] * COUNT))
    changed = rows().to_list()
    changed[1]["labels"][-1] = -100
    for other in (rows().to_list()[::-1], rows().to_list()[:-1], changed):
        with pytest.raises(CourseError, match="other training rows"):
            made.check_rows(other)
    sorted(copy.iterdir())[-1].unlink()
    for folder, count in ((copy, 6), (copy / "nothing", 0)):
        with pytest.raises(CourseError, match=f"at {count} rows"):
            LogitCache(folder).check_rows(rows())


def test_ids_of_a_large_vocabulary_do_not_wrap_around():
    vocabulary = 2**16 + 1  # one more than 16 bits hold
    config = deepcopy(tiny.teacher().model.config)
    config.vocab_size = vocabulary
    model = Loaded(type(tiny.teacher().model)(config), None, "")
    settings = {"vocabulary": vocabulary, "k": vocabulary, "temperature": 1.0}
    tensors = logit_cache.ask_teacher(rows().to_list()[:1], model, settings, 1)
    assert tensors["ids"].dtype == torch.int32
    assert tensors["ids"][0].max() == vocabulary - 1


@pytest.mark.parametrize("shards", [1, 2, 3])
def test_write_cache_continues_after_its_last_shard(made, copy, shards):
    """A kill leaves whole shards, and a draft that is never read."""
    for path in sorted(copy.iterdir())[shards:]:
        path.rename(copy / f".{path.name}.123")
    before = files(copy)
    assert len(LogitCache(copy)) == min(3 * shards, COUNT)
    assert len(write(copy)) == COUNT
    assert before.items() <= files(copy).items()
    compare_shards(copy, made.folder)


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGKILL")
def test_write_cache_survives_a_real_kill(made, tmp_path):
    folder = tmp_path / "killed"
    models = [str(tiny.folder(name)) for name in (tiny.TEACHER, tiny.SMALL)]
    work = forked.write_one_shard, tiny.traces(COUNT), *models, folder, OPTIONS
    process = forked.start(*work)
    wait_until(lambda: list(folder.glob("rows_*")))
    process.kill()
    process.join(120)
    assert process.exitcode == -signal.SIGKILL
    assert len(LogitCache(folder)) == 3
    write(folder)
    compare_shards(folder, made.folder)


@pytest.mark.parametrize(
    "changes, named",
    [
        ({"k": 4}, "'k': 5"),
        ({"temperature": 2.0}, "'temperature': 1.0"),
        ({"max_length": 300}, "'max_length': 320"),
        ({"traces": tiny.traces(6)}, "'rows': 7"),
        ({"traces": tiny.traces(COUNT)[::-1]}, "'rows_sha256'"),
    ],
)
def test_write_cache_refuses_a_cache_made_otherwise(copy, changes, named):
    before = files(copy)
    with pytest.raises(CourseError, match="Name another folder") as caught:
        write(copy, **changes)
    assert named in str(caught.value)
    assert files(copy) == before


def test_write_cache_refuses_another_teacher_and_one_without_numbers(copy):
    teacher = replace(tiny.teacher(), model=deepcopy(tiny.teacher().model))
    assert len(write(copy, teacher=teacher)) == COUNT
    weights = next(teacher.model.parameters()).data.view(-1)
    weights *= 1.01  # trained a little further
    with pytest.raises(CourseError, match="teacher_sha256"):
        write(copy, teacher=teacher)
    weights[99] = float("nan")
    with pytest.raises(CourseError, match="are no numbers"):
        write(copy / "new", teacher=teacher)
    assert not (copy / "new").exists()


def set_metadata(old, new):
    """The same shard with other settings."""

    def damage(path):
        with safe_open(path, "pt") as tensors:
            about = tensors.metadata()[METADATA].replace(old, new)
        save_file(load_file(path), path, {METADATA: about})

    return damage


def flip_a_byte(path):
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)


GAP = "does not follow row 3"


@pytest.mark.parametrize(
    "damage, named",
    [
        (lambda path: path.write_bytes(path.read_bytes()[:-10]), "no shard"),
        (lambda path: save_file(load_file(path), path), "no shard"),
        (set_metadata("{", ""), "no shard"),
        (set_metadata('"format": 3', '"format": 1'), "not of format 3"),
        (flip_a_byte, "content has changed"),
        (set_metadata('"k": 5', '"k": 6'), GAP),
        (lambda path: path.unlink(), GAP),
        (lambda path: shutil.copy(min(path.parent.iterdir()), path), GAP),
    ],
)
def test_write_cache_refuses_a_broken_shard(copy, damage, named):
    """One that is cut, of another cache, missing, or there twice."""
    damage(copy / "rows_000003.safetensors")
    before = files(copy)
    with pytest.raises(CourseError, match=named) as caught:
        write(copy)
    assert "Delete the folder copy" in str(caught.value)
    assert files(copy) == before  # refused before the teacher was asked
