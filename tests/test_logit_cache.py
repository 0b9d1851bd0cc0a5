"""The top-k cache: what it holds, kills, and what it refuses."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import pytest
import tiny
import torch

from helpers import CourseError
from helpers.logit_cache import LogitCacheError, open_cache, write_cache
from helpers.losses import (
    LossError,
    kd_loss,
    shift_for_next_token,
    topk_kd_loss,
)
from helpers.models import load_teacher
from helpers.profiles import PROFILES
from helpers.sft import encode_traces

COUNT, K = 7, 5
LENGTH = 320


def write(folder, **changes):
    """A cache of 7 rows in shards of 3, 3 and 1."""
    options = {
        "traces": tiny.traces(COUNT),
        "teacher": tiny.teacher(),
        "tokenizer": tiny.tokenizer("mini-qwen3-small"),
        "max_length": LENGTH,
        "k": K,
        "batch_size": 2,
        "shard_rows": 3,
        "progress": False,
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


class Killed(Exception):
    pass


def kill_after(rows_written):
    def progress(done, total):
        assert total == COUNT
        if done >= rows_written:
            raise Killed

    return progress


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


def test_write_cache_index_says_what_it_was_made_from(made):
    index = json.loads((made.folder / "index.json").read_text())
    assert index == made.index
    teacher = tiny.teacher()
    expected = {
        "format": 1,
        "teacher": "mini-qwen3",
        "temperature": 1.0,
        "k": K,
        "vocabulary": len(teacher.tokenizer),
        "max_length": LENGTH,
        "rows": COUNT,
        "positions": sum(
            label != -100 for row in rows() for label in row["labels"]
        ),
    }
    assert expected.items() <= index.items()
    assert index["vocabulary"] < teacher.model.config.vocab_size
    assert [shard["rows"] for shard in index["shards"]] == [3, 3, 1]
    assert [shard["first_row"] for shard in index["shards"]] == [0, 3, 6]
    assert str(made.folder.parent) not in json.dumps(index)
    for shard in index["shards"]:
        size = (made.folder / shard["file"]).stat().st_size
        assert shard["bytes"] == size


def test_logit_cache_bytes_per_token(made):
    """Five ids of 2 bytes, five values of 2, and a little for headers."""
    assert K * (2 + 2) < made.bytes_per_token < K * (2 + 2) + 5


def test_write_cache_takes_wider_ids_only_where_they_are_needed(
    monkeypatch, tmp_path
):
    from helpers import logit_cache

    hidden, counts = torch.randn(4, 8), torch.tensor([3, 1])
    monkeypatch.setattr(
        logit_cache, "answer_states", lambda rows, model: (hidden, counts)
    )
    for vocabulary, dtype in ((2**16, torch.uint16), (2**16 + 1, torch.int32)):
        head = torch.nn.Linear(8, vocabulary, bias=False)
        with torch.no_grad():
            head.weight[-1] = 100 * hidden[0]  # the last id must survive

        class Teacher:
            def get_output_embeddings(self, head=head):
                return head

        index = {"vocabulary": vocabulary, "k": 2, "temperature": 1.0}
        found = logit_cache.ask_teacher([{}], Teacher(), index, 1)
        assert found["ids"].dtype == dtype
        assert found["ids"].long()[0, 0] == vocabulary - 1


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


@pytest.mark.parametrize("written", [3, 6])
def test_write_cache_continues_after_a_kill_with_the_same_bytes(
    made, tmp_path, written
):
    folder = tmp_path / "killed"
    with pytest.raises(Killed):
        write(folder, progress=kill_after(written))
    assert len(files(folder)) == 1 + written // 3
    with pytest.raises(LogitCacheError, match=f"{written} of {COUNT} rows"):
        open_cache(folder)
    before = files(folder)
    calls = []
    write(folder, progress=lambda done, total: calls.append((done, total)))
    assert calls[0] == (min(written + 3, COUNT), COUNT)
    assert files(folder) == files(made.folder)
    assert all(
        files(folder)[name] == data
        for name, data in before.items()
        if name != "index.json"
    )


def test_write_cache_continues_after_a_kill_between_shard_and_index(
    made, tmp_path, monkeypatch
):
    """The shard is there, the index does not know it yet."""
    from helpers import logit_cache

    folder = tmp_path / "killed"
    with monkeypatch.context() as patch:

        def die(*_):
            raise Killed

        patch.setattr(logit_cache, "write_index", die)
        with pytest.raises(Killed):
            write(folder)
    assert list(files(folder)) == ["rows_000000.safetensors"]
    write(folder)
    assert files(folder) == files(made.folder)


def test_write_cache_leaves_nothing_half_written(tmp_path, monkeypatch):
    """A full disk: the cure, no draft, and the second call goes on."""
    from helpers import logit_cache as cache_files

    folder = tmp_path / "full"

    def full(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(cache_files.os, "fsync", full)
        with pytest.raises(OSError, match="Free some space"):
            write(folder)
    assert files(folder) == {}
    assert len(write(folder)) == COUNT


def test_write_cache_only_opens_a_finished_cache(copy):
    before = {p: p.stat().st_mtime_ns for p in copy.iterdir()}

    def progress(done, total):
        raise AssertionError("the teacher was asked again")

    assert len(write(copy, progress=progress)) == COUNT
    assert before == {p: p.stat().st_mtime_ns for p in copy.iterdir()}


def changed_traces(field):
    traces = tiny.traces(COUNT)
    traces[2] = {**traces[2], field: traces[2][field] + " "}
    return traces


@pytest.mark.parametrize(
    "changes, match",
    [
        ({"k": 4}, r"'k': \(5, 4\)"),
        ({"temperature": 2.0}, r"'temperature': \(1.0, 2.0\)"),
        ({"max_length": 300}, r"'max_length': \(320, 300\)"),
        ({"traces": tiny.traces(6)}, r"'rows': \(7, 6\)"),
        ({"traces": changed_traces("id")}, "'traces_sha256'"),
        ({"traces": changed_traces("question")}, "'traces_sha256'"),
        ({"traces": changed_traces("qwen3_answer")}, "'traces_sha256'"),
        ({"traces": tiny.traces(COUNT)[::-1]}, "'traces_sha256'"),
    ],
)
def test_write_cache_refuses_a_cache_made_otherwise(copy, changes, match):
    before = files(copy)
    with pytest.raises(LogitCacheError, match=match) as caught:
        write(copy, **changes)
    assert "Name another folder" in str(caught.value)
    assert files(copy) == before


def test_write_cache_refuses_a_cache_of_another_teacher(copy):
    small = tiny.folder("mini-qwen3-small")
    other = load_teacher(PROFILES["mini"], str(small))
    match = r"'teacher': \('mini-qwen3', 'mini-qwen3-small'\)"
    with pytest.raises(LogitCacheError, match=match):
        write(copy, teacher=other)
    same_name = load_teacher(PROFILES["mini"], str(tiny.folder("mini-qwen3")))
    assert len(write(copy, teacher=same_name)) == COUNT
    with torch.no_grad():
        for parameter in same_name.model.parameters():
            parameter.mul_(1.01)  # trained a little further
    with pytest.raises(LogitCacheError, match="teacher_sha256"):
        write(copy, teacher=same_name)


def test_write_cache_refuses_a_teacher_with_another_tokenizer(tmp_path):
    with pytest.raises(LossError, match="tokenizers differ"):
        write(tmp_path / "new", teacher=tiny.plain_student())
    assert not (tmp_path / "new").exists()


def test_write_cache_refuses_a_cache_of_another_tokenizer(copy):
    """Both models have one more token than when the cache was made."""
    from transformers import AutoTokenizer

    grown = AutoTokenizer.from_pretrained(tiny.folder(tiny.TEACHER))
    grown.add_tokens(["<new>"])
    teacher = replace(tiny.teacher(), tokenizer=grown)
    with pytest.raises(LogitCacheError, match="'tokenizer_sha256'"):
        write(copy, tokenizer=grown, teacher=teacher)


@pytest.mark.parametrize("k", [0, 10**6])
def test_write_cache_refuses_a_k_beyond_the_vocabulary(tmp_path, k):
    with pytest.raises(CourseError, match=f"k is {k}, but the vocabulary"):
        write(tmp_path / "new", k=k)


def test_write_cache_refuses_a_temperature(tmp_path):
    with pytest.raises(LossError, match="temperature is 0"):
        write(tmp_path / "new", temperature=0)


def test_write_cache_refuses_a_teacher_that_caps_its_logits(tmp_path):
    teacher = tiny.teacher()
    teacher.model.config.final_logit_softcapping = 30.0
    try:
        with pytest.raises(LogitCacheError, match="soft capping"):
            write(tmp_path / "new")
    finally:
        del teacher.model.config.final_logit_softcapping


def damage(path, how):
    data = path.read_bytes()
    if how == "missing":
        path.unlink()
    elif how == "cut":
        path.write_bytes(data[:-10])
    else:  # of the right size, but no safetensors file
        path.write_bytes(b"\xff" * len(data))


@pytest.mark.parametrize(
    "how, match",
    [
        ("missing", "is missing"),
        ("cut", r"has \d+ bytes, the index says \d+"),
        ("scrambled", "cannot be read"),
    ],
)
@pytest.mark.parametrize("again", [open_cache, write])
def test_cache_with_a_broken_shard_is_refused(copy, how, match, again):
    damage(copy / "rows_000003.safetensors", how)
    with pytest.raises(LogitCacheError, match=match) as caught:
        again(copy)
    assert "copy/rows_000003.safetensors" in str(caught.value)
    assert "Delete the folder copy" in str(caught.value)


def test_write_cache_does_not_build_on_a_broken_shard(tmp_path):
    folder = tmp_path / "killed"
    with pytest.raises(Killed):
        write(folder, progress=kill_after(3))
    damage(folder / "rows_000000.safetensors", "cut")
    before = files(folder)
    with pytest.raises(LogitCacheError, match="was cut or changed"):
        write(folder)
    assert files(folder) == before  # found before the teacher was asked


def test_open_cache_refuses_a_shard_that_the_index_does_not_describe(copy):
    """Of the right size, so only what is inside tells."""
    path = copy / "index.json"
    index = json.loads(path.read_text())
    index["shards"][0]["positions"] += 1
    path.write_text(json.dumps(index))
    with pytest.raises(LogitCacheError, match="rows_000000.* holds"):
        open_cache(copy)


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", "7"])
def test_open_cache_refuses_a_broken_index(copy, text):
    (copy / "index.json").write_text(text)
    with pytest.raises(LogitCacheError, match="no index of a cache"):
        open_cache(copy)


def test_open_cache_refuses_another_format_and_no_cache(copy, tmp_path):
    index = json.loads((copy / "index.json").read_text())
    (copy / "index.json").write_text(json.dumps({**index, "format": 2}))
    with pytest.raises(LogitCacheError, match="has format 2"):
        open_cache(copy)
    with pytest.raises(LogitCacheError, match="no index.json there"):
        open_cache(tmp_path / "nothing")
