"""The top-k cache: what it holds, kills, and what it refuses."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time

import pytest
import tiny
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer

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
        "tokenizer": tiny.tokenizer("mini-qwen3-small"),
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


def rows():
    tokenizer = tiny.tokenizer("mini-qwen3-small")
    return encode_traces(tiny.traces(COUNT), tokenizer, max_length=LENGTH)[0]


def teacher_logits(row):
    """The teacher's own logits on one row, its padding cut off."""
    teacher = tiny.teacher()
    with torch.no_grad():
        logits = teacher.model(input_ids=torch.tensor([row["input_ids"]]))
    return logits.logits[..., : len(teacher.tokenizer)]


def files(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def kill_after(shards, folder, monkeypatch):
    """A run that stops before it writes one shard more."""
    usual = logit_cache.write_shard

    def dies(*args):
        if len(files(folder)) == shards:
            raise KeyboardInterrupt
        return usual(*args)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        folder.mkdir()
        patch.setattr(logit_cache, "write_shard", dies)
        write(folder)


def test_write_cache_holds_the_teachers_own_log_probabilities(made):
    assert len(made) == COUNT
    for number, row in enumerate(rows()):
        ids, logprobs = made.row(number)
        labels = torch.tensor([row["labels"]])
        logits, _, mask = shift_for_next_token(teacher_logits(row), labels)
        expected = logits[mask].log_softmax(-1)
        assert ids.shape == logprobs.shape == (int(mask.sum()), K)
        assert (ids.dtype, logprobs.dtype) == (torch.int64, torch.float32)
        close = {"atol": 1e-3, "rtol": 1e-3}  # float16
        torch.testing.assert_close(logprobs, expected.gather(-1, ids), **close)
        torch.testing.assert_close(logprobs, expected.topk(K)[0], **close)


def test_write_cache_starts_at_the_first_answer_token(made):
    """Entry 0 is the teacher's guess after the prompt, entry -1 the one
    before the end of the turn."""
    for number, row in enumerate(rows()):
        first = next(i for i, t in enumerate(row["labels"]) if t != -100)
        logits = teacher_logits(row)[0]
        ids, _ = made.row(number)
        assert len(ids) == len(row["labels"]) - first
        assert ids[0, 0] == logits[first - 1].argmax()
        assert ids[-1, 0] == logits[-2].argmax()
        assert ids[:, 0].tolist() == logits[first - 1 : -1].argmax(1).tolist()


def test_write_cache_gives_the_loss_of_the_teacher_in_memory(tmp_path):
    """With all tokens kept, up to float16; the student is random."""
    everything = len(tiny.teacher().tokenizer)
    cache = write(tmp_path / "all", k=everything, temperature=2.0)
    for number, row in list(enumerate(rows()))[:3]:
        labels = torch.tensor([row["labels"]])
        logits, _, mask = shift_for_next_token(teacher_logits(row), labels)
        student = torch.randn(logits.shape)
        shape = *mask.shape, everything
        ids, values = torch.zeros(shape).long(), torch.zeros(shape)
        ids[mask], values[mask] = cache.row(number)
        found = topk_kd_loss(student, ids, values, mask, temperature=2.0)
        exact = kd_loss(student, logits, mask, temperature=2.0)
        torch.testing.assert_close(found, exact, rtol=2e-3, atol=2e-3)


def test_logit_cache_says_what_it_was_made_from(made):
    teacher = tiny.teacher()
    expected = {
        "teacher": "mini-qwen3",
        "temperature": 1.0,
        "k": K,
        "vocabulary": len(teacher.tokenizer),
        "max_length": LENGTH,
        "rows": COUNT,
    }
    assert expected.items() <= made.settings.items()
    assert (made.k, made.temperature) == (K, 1.0)
    assert made.settings["vocabulary"] < teacher.model.config.vocab_size
    assert [path.name[5:11] for path in made.paths] == [
        "000000",
        "000003",
        "000006",
    ]
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


def test_write_cache_takes_wider_ids_only_where_they_are_needed(tmp_path):
    """Two bytes an id up to 2**16 tokens, then four."""
    teacher, small = tiny.teacher(), 2**16
    for vocabulary, dtype in ((small, torch.uint16), (small + 1, torch.int32)):
        config = teacher.model.config.__class__(
            **teacher.model.config.to_dict() | {"vocab_size": vocabulary}
        )
        torch.manual_seed(0)
        model = type(teacher.model)(config)
        settings = {"vocabulary": vocabulary, "k": vocabulary}
        tensors = logit_cache.ask_teacher(
            rows().to_list()[:1],
            Loaded(model, None, ""),
            settings | {"temperature": 1.0},
            1,
        )
        assert tensors["ids"].dtype == dtype
        assert tensors["ids"][0].long().max() == vocabulary - 1


def test_logit_cache_row_refuses_a_row_that_is_not_there(made):
    made.row(COUNT - 1)
    for number in (COUNT, -1):
        with pytest.raises(IndexError, match=f"cache of {COUNT} rows"):
            made.row(number)


def test_open_cache_gives_the_same_rows(made):
    again = open_cache(made.folder)
    for number in range(COUNT):
        for ours, theirs in zip(
            again.row(number), made.row(number), strict=True
        ):
            assert torch.equal(ours, theirs)


def test_write_cache_leaves_out_the_rows_that_training_leaves_out(tmp_path):
    lengths = sorted(len(row["input_ids"]) for row in rows())
    cache = write(tmp_path / "short", max_length=lengths[3])
    kept = [r for r in rows() if len(r["input_ids"]) <= lengths[3]]
    assert 0 < len(cache) == len(kept) < COUNT
    for number, row in enumerate(kept):
        trained = sum(label != -100 for label in row["labels"])
        assert len(cache.row(number)[0]) == trained


@pytest.mark.parametrize("shards", [1, 2])
def test_write_cache_continues_after_a_kill_with_the_same_bytes(
    made, tmp_path, monkeypatch, shards
):
    folder = tmp_path / "killed"
    kill_after(shards, folder, monkeypatch)
    with pytest.raises(CourseError, match=f"{3 * shards} of {COUNT} rows"):
        open_cache(folder)
    before = {p: p.stat().st_mtime_ns for p in folder.iterdir()}
    write(folder)
    assert files(folder) == files(made.folder)
    assert all(p.stat().st_mtime_ns == then for p, then in before.items())


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


def test_a_half_written_draft_is_not_part_of_the_cache(made, copy):
    """What a kill leaves beside the shards is never read."""
    shard = copy / "rows_000006.safetensors"
    shard.rename(copy / f".{shard.name}.123")
    with pytest.raises(CourseError, match=f"6 of {COUNT} rows"):
        open_cache(copy)
    write(copy)
    assert open_cache(copy).row(6)[0].equal(made.row(6)[0])


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
    before = {p: p.stat().st_mtime_ns for p in copy.iterdir()}
    assert len(write(copy)) == COUNT
    assert before == {p: p.stat().st_mtime_ns for p in copy.iterdir()}


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
    small = tiny.folder("mini-qwen3-small")
    other = load_teacher(PROFILES["mini"], str(small))
    with pytest.raises(CourseError, match="'teacher': 'mini-qwen3'"):
        write(copy, teacher=other)
    same_name = load_teacher(PROFILES["mini"], str(tiny.folder("mini-qwen3")))
    assert len(write(copy, teacher=same_name)) == COUNT
    with torch.no_grad():
        for parameter in same_name.model.parameters():
            parameter.mul_(1.01)  # trained a little further
    with pytest.raises(CourseError, match="teacher_sha256"):
        write(copy, teacher=same_name)


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
    folder = tiny.folder(tiny.STUDENT)
    model = load_teacher(PROFILES["mini"], str(folder)).model
    model.config.final_logit_softcapping = 3.0
    tokenizer = AutoTokenizer.from_pretrained(folder)
    cache = write(
        tmp_path / "capped",
        teacher=Loaded(model, tokenizer, ""),
        tokenizer=tokenizer,
    )
    row = encode_traces(tiny.traces(1), tokenizer, max_length=LENGTH)[0][0]
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([row["input_ids"]])).logits
    logits = logits[..., : len(tokenizer)]
    labels = torch.tensor([row["labels"]])
    logits, _, mask = shift_for_next_token(logits, labels)
    expected = logits[mask].log_softmax(-1).topk(K).values
    close = {"atol": 1e-3, "rtol": 1e-3}  # float16
    torch.testing.assert_close(cache.row(0)[1], expected, **close)


def rewrite(path, **changes):
    """A whole shard with other tensors or settings in it."""
    with safe_open(path, "pt") as tensors:
        metadata = tensors.metadata()
    for old, new in changes.pop("settings", {}).items():
        metadata = {k: v.replace(old, new) for k, v in metadata.items()}
    save_file(load_file(path) | changes, path, metadata)


DAMAGES = {
    "cut": lambda path: path.write_bytes(path.read_bytes()[:-10]),
    "longer": lambda path: path.write_bytes(path.read_bytes() + b"0" * 8),
    "scrambled": lambda path: path.write_bytes(b"\xff" * 500),
    "empty": lambda path: path.write_bytes(b""),
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
