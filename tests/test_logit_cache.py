"""The top-k cache: what it holds, kills, and what it refuses."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from copy import deepcopy

import pytest
import tiny
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from helpers import CourseError, logit_cache
from helpers.logit_cache import open_cache, write_cache
from helpers.losses import (
    LossError,
    kd_loss,
    shift_for_next_token,
    topk_kd_loss,
)
from helpers.models import Loaded, load_teacher
from helpers.profiles import PROFILES
from helpers.sft import encode_traces

COUNT, K = 7, 5
LENGTH = 320
CLOSE = {"atol": 1e-3, "rtol": 1e-3}  # float16


@pytest.fixture(autouse=True, scope="module")
def small_shards():
    """Seven rows in shards of 3, 3 and 1."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(logit_cache, "SHARD_ROWS", 3)
        yield


def write(folder, **changes):
    options = {
        "traces": tiny.traces(COUNT),
        "teacher": tiny.teacher(),
        "tokenizer": tiny.tokenizer(tiny.SMALL),
        "max_length": LENGTH,
        "k": K,
        "batch_size": 2,
    }
    options |= changes
    traces, teacher = options.pop("traces"), options.pop("teacher")
    return write_cache(traces, teacher, folder, **options)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A cache that the tests only read."""
    return write(tmp_path_factory.mktemp("cache") / "made")


@pytest.fixture
def copy(made, tmp_path):
    """A cache that a test may break."""
    return shutil.copytree(made.folder, tmp_path / "copy")


def rows(tokenizer=None, max_length=LENGTH):
    tokenizer = tokenizer or tiny.tokenizer(tiny.SMALL)
    traces = tiny.traces(COUNT)
    return encode_traces(traces, tokenizer, max_length=max_length)[0]


def teacher_logits(row, teacher=None):
    """The teacher's own logits at the trained positions, padding cut off."""
    teacher = teacher or tiny.teacher()
    ids, labels = (torch.tensor([row[k]]) for k in ("input_ids", "labels"))
    with torch.no_grad():
        logits = teacher.model(input_ids=ids).logits
    logits, _, mask = shift_for_next_token(logits, labels)
    return logits[mask][:, : len(teacher.tokenizer)]


def files(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def written(folder):
    """When each file was written last."""
    return {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}


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


def test_cache_gives_the_loss_of_the_teacher_in_memory(tmp_path):
    """With all tokens kept, up to float16; the student is random."""
    everything = len(tiny.teacher().tokenizer)
    cache = write(tmp_path / "all", k=everything, temperature=2.0)
    for number, row in list(enumerate(rows()))[:3]:
        logits = teacher_logits(row)[None]
        mask, student = torch.ones(logits.shape[:2]), torch.randn_like(logits)
        top = (tensor[None] for tensor in cache.row(number))
        loss = topk_kd_loss(student, *top, mask, temperature=2.0)
        exact = kd_loss(student, logits, mask, temperature=2.0)
        torch.testing.assert_close(loss, exact, rtol=2e-3, atol=2e-3)


def test_cache_says_what_it_was_made_from(made):
    teacher = tiny.teacher()
    expected = {
        "teacher": tiny.TEACHER,
        "temperature": 1.0,
        "k": K,
        "vocabulary": len(teacher.tokenizer),
        "max_length": LENGTH,
        "rows": COUNT,
    }
    assert expected.items() <= made.settings.items()
    assert (made.k, made.temperature) == (K, 1.0)
    assert made.settings["vocabulary"] < teacher.model.config.vocab_size
    for path in made.paths:  # no path of this machine goes along
        assert str(made.folder.parent).encode() not in path.read_bytes()


def test_logit_cache_check_rows_takes_its_own_rows_alone(made):
    """What a trainer asks before it trusts a cache."""
    made.check_rows(rows())
    made.check_rows(rows().add_column("soft_start", [9] * COUNT))
    changed = rows().to_list()
    changed[1]["labels"][-1] = -100
    for other in (rows().to_list()[::-1], rows().to_list()[:-1], changed):
        with pytest.raises(CourseError, match="other training rows"):
            made.check_rows(other)


def test_logit_cache_bytes_per_token(made):
    """Five ids of 2 bytes, five values of 2, and a little for headers."""
    assert K * (2 + 2) < made.bytes_per_token < K * (2 + 2) + 5


@pytest.mark.parametrize(
    "vocabulary, dtype", [(2**16, torch.uint16), (2**16 + 1, torch.int32)]
)
def test_ids_are_no_wider_than_the_vocabulary_needs(vocabulary, dtype):
    teacher = tiny.teacher().model
    config = deepcopy(teacher.config)
    config.vocab_size = vocabulary
    torch.manual_seed(0)
    model = Loaded(type(teacher)(config), None, "")
    settings = {"vocabulary": vocabulary, "k": vocabulary, "temperature": 1.0}
    tensors = logit_cache.ask_teacher(rows().to_list()[:1], model, settings, 1)
    assert tensors["ids"].dtype == dtype
    assert tensors["ids"][0].long().max() == vocabulary - 1


def test_logit_cache_row_refuses_a_row_that_is_not_there(made):
    made.row(COUNT - 1)
    for number in (COUNT, -1):
        with pytest.raises(IndexError, match=f"cache of {COUNT} rows"):
            made.row(number)


def test_rows_that_training_leaves_out_are_left_out(tmp_path):
    limit = sorted(len(row["input_ids"]) for row in rows())[3]
    cache = write(tmp_path / "short", max_length=limit)
    kept = rows(max_length=limit)
    assert 0 < len(cache) == len(kept) < COUNT
    for number, row in enumerate(kept):
        trained = sum(label != -100 for label in row["labels"])
        assert len(cache.row(number)[0]) == trained


@pytest.mark.parametrize("shards", [1, 2])
def test_write_cache_continues_after_its_last_shard(made, copy, shards):
    """A kill leaves whole shards, and a draft that is never read."""
    for path in sorted(copy.iterdir())[shards:]:
        path.rename(copy / f".{path.name}.123")
    with pytest.raises(CourseError, match=f"{3 * shards} of {COUNT} rows"):
        open_cache(copy)
    before = written(copy)
    write(copy)
    assert files(made.folder).items() <= files(copy).items()
    assert before.items() <= written(copy).items()


KILLED = """
import sys, time
from pathlib import Path
import test_logit_cache as cases
from helpers import logit_cache
logit_cache.SHARD_ROWS = 3
usual = logit_cache.ask_teacher
def slow(*args):
    if list(Path(sys.argv[1]).glob("rows_*")):
        time.sleep(600)
    return usual(*args)
logit_cache.ask_teacher = slow
cases.write(Path(sys.argv[1]))
"""


@pytest.mark.slow
def test_write_cache_survives_a_real_kill(made, tmp_path):
    folder = tmp_path / "killed"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(folder)], env=environment
    )
    deadline = time.monotonic() + 120
    while not list(folder.glob("rows_*")):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    with pytest.raises(CourseError, match=f"3 of {COUNT} rows"):
        open_cache(folder)
    write(folder)
    assert files(folder) == files(made.folder)


def test_write_cache_leaves_nothing_half_written(tmp_path, monkeypatch):
    """A full disk: the cure, no draft, and the second call goes on."""
    folder = tmp_path / "full"

    def full(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="Free some space"):
            write(folder)
    assert files(folder) == {}
    assert len(write(folder)) == COUNT


def test_write_cache_only_opens_a_finished_cache(copy):
    before = written(copy)
    assert len(write(copy)) == COUNT
    assert written(copy) == before


def changed_traces(field):
    traces = tiny.traces(COUNT)
    traces[2] = {**traces[2], field: "So " + traces[2][field]}
    return traces


@pytest.mark.parametrize(
    "changes, named",
    [
        ({"k": 4}, "'k': 5"),
        ({"temperature": 2.0}, "'temperature': 1.0"),
        ({"max_length": 300}, "'max_length': 320"),
        ({"traces": tiny.traces(6)}, "'rows': 7"),
        ({"traces": changed_traces("question")}, "'rows_sha256'"),
        ({"traces": changed_traces("qwen3_answer")}, "'rows_sha256'"),
        ({"traces": tiny.traces(COUNT)[::-1]}, "'rows_sha256'"),
    ],
)
def test_write_cache_refuses_a_cache_made_otherwise(copy, changes, named):
    before = files(copy)
    with pytest.raises(CourseError, match="Name another folder") as caught:
        write(copy, **changes)
    assert named in str(caught.value)
    assert files(copy) == before


def test_write_cache_refuses_a_cache_of_another_teacher(copy):
    other, same = (
        load_teacher(PROFILES["mini"], str(tiny.folder(name)))
        for name in (tiny.SMALL, tiny.TEACHER)
    )
    with pytest.raises(CourseError, match="'teacher': 'mini-qwen3'"):
        write(copy, teacher=other)
    assert len(write(copy, teacher=same)) == COUNT
    with torch.no_grad():
        for parameter in same.model.parameters():
            parameter.mul_(1.01)  # trained a little further
    with pytest.raises(CourseError, match="teacher_sha256"):
        write(copy, teacher=same)


def test_write_cache_refuses_what_it_cannot_ask(tmp_path):
    with pytest.raises(CourseError, match="tokenizers differ"):
        write(tmp_path / "new", teacher=tiny.plain_student())
    for k in (0, 10**6):
        with pytest.raises(CourseError, match=f"k is {k}"):
            write(tmp_path / "new", k=k)
    with pytest.raises(LossError, match="temperature is 0"):
        write(tmp_path / "new", temperature=0)
    assert not (tmp_path / "new").exists()


def test_write_cache_keeps_the_cap_of_a_teachers_logits(tmp_path):
    """Soft capping comes after the head: Gemma 2 does it."""
    folder = str(tiny.folder(tiny.STUDENT))
    teacher = load_teacher(PROFILES["mini"], folder)
    teacher.model.config.final_logit_softcapping = 3.0
    tokenizer = teacher.tokenizer
    cache = write(tmp_path / "capped", teacher=teacher, tokenizer=tokenizer)
    logits = teacher_logits(rows(tokenizer)[0], teacher)
    expected = logits.log_softmax(-1).topk(K).values
    torch.testing.assert_close(cache.row(0)[1], expected, **CLOSE)


def rewrite(path, **changes):
    """A whole shard with other tensors or settings in it."""
    with safe_open(path, "pt") as tensors:
        metadata = tensors.metadata()
    for old, new in changes.pop("settings", {}).items():
        metadata = {k: v.replace(old, new) for k, v in metadata.items()}
    save_file(load_file(path) | changes, path, metadata)


DAMAGES = {
    "cut": lambda path: path.write_bytes(path.read_bytes()[:-10]),
    "no metadata": lambda path: save_file(load_file(path), path),
    "no json": lambda path: save_file(load_file(path), path, {"cache": "{"}),
    "no settings": lambda path: save_file(
        load_file(path), path, {"cache": '{"first_row": 3}'}
    ),
    "another format": lambda path: rewrite(
        path, settings={'"format": 2': '"format": 1'}
    ),
    "rows missing": lambda path: rewrite(path, lengths=torch.tensor([5, 5])),
    "no tensors": lambda path: save_file({}, path),
}


@pytest.mark.parametrize("how", DAMAGES)
@pytest.mark.parametrize("again", [open_cache, write])
def test_cache_with_a_broken_shard_is_refused(copy, how, again):
    DAMAGES[how](copy / "rows_000003.safetensors")
    before = files(copy)
    with pytest.raises(CourseError, match="Delete the folder copy") as caught:
        again(copy)
    assert "copy/rows_000003.safetensors" in str(caught.value)
    assert files(copy) == before  # found before the teacher was asked


def test_cache_with_shards_that_do_not_belong_together_is_refused(copy):
    paths = sorted(copy.iterdir())
    first, second = (path.read_bytes() for path in paths[:2])
    paths[1].unlink()  # one of the middle is missing
    with pytest.raises(CourseError, match="row 3 of copy is missing"):
        write(copy)
    for one, two in ((second, first), (first, first)):  # changed places, twice
        paths[0].write_bytes(one)
        paths[1].write_bytes(two)
        with pytest.raises(CourseError, match="is missing, or"):
            open_cache(copy)
    paths[0].write_bytes(first)
    paths[1].write_bytes(second)
    assert len(open_cache(copy)) == COUNT
    rewrite(paths[1], settings={'"temperature": 1.0': '"temperature": 2.0'})
    with pytest.raises(CourseError, match="is of another cache"):
        open_cache(copy)


def test_open_cache_refuses_a_folder_without_a_cache(tmp_path):
    for folder in (tmp_path, tmp_path / "nothing"):
        with pytest.raises(CourseError, match="holds 0 of its rows"):
            open_cache(folder)
