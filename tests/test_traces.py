"""helpers.traces: safe to kill, honest to read."""

from __future__ import annotations

import errno
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import tiny

from helpers import traces as module
from helpers.models import weights_hash
from helpers.profiles import ROOT
from helpers.traces import (
    TraceFileError,
    audit_traces,
    generate_traces,
    load_traces,
    teacher_messages,
)

COUNT = 14  # a chunk is 12 problems here: one and a bit


def make(path: Path, folder: Path, count: int = COUNT, **options: Any) -> Any:
    """Let the tiny teacher answer the first `count` problems."""
    teacher = tiny.teacher()
    seed = options.pop("seed", 7)
    return generate_traces(
        tiny.problems(count),
        teacher.model,
        teacher.tokenizer,
        path,
        profile=tiny.profile(folder, **options),
        seed=seed,
        progress=False,
    )


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> bytes:
    """The file that an uninterrupted run writes."""
    folder = tmp_path_factory.mktemp("whole")
    make(folder / "traces.jsonl", folder)
    return (folder / "traces.jsonl").read_bytes()


# --- made once, safe to kill -------------------------------------------------


def test_generate_traces_rows_are_complete(whole, tmp_path):
    path = tmp_path / "traces.jsonl"
    path.write_bytes(whole)
    rows = load_traces(path)
    problems = tiny.problems(COUNT)
    assert [r["id"] for r in rows] == [p["id"] for p in problems]
    assert [r["gold"] for r in rows] == [p["answer"] for p in problems]
    assert all(r["qwen3_answer"].startswith("<think>\n") for r in rows)
    assert rows[0]["sampling"] == {
        "teacher": "mini-qwen3",
        "teacher_sha256": weights_hash(tiny.teacher().model)[:12],
        "temperature": 0.6,
        "top_p": 0.95,
        "top_k": 20,
        "max_new_tokens": 16,
        "seed": 7,
    }
    assert len(set(rows["qwen3_answer"])) > 10


def test_generate_traces_reports_the_token_limit(whole, tmp_path):
    path = tmp_path / "traces.jsonl"
    path.write_bytes(whole)
    rows = list(load_traces(path))
    cut = [r for r in rows if r["finish_reason"] == "length"]
    assert cut and all(r["completion_tokens"] == 16 for r in cut)
    assert audit_traces(rows)["cut by the token limit"] == len(cut)


def test_generate_traces_resumes_from_any_byte(whole, tmp_path):
    """Every kind of stump a kill can leave gives the same file in the end."""
    rng = random.Random(2)
    ends = [i for i, byte in enumerate(whole) if byte == ord("\n")]
    cuts = {0, 1, 5, 12, len(whole) - 1, len(whole)}
    cuts |= {ends[0], ends[0] + 1, ends[4] + 1, ends[11] + 1, ends[12] + 3}
    cuts |= {rng.randrange(len(whole)) for _ in range(8)}
    for number, cut in enumerate(sorted(cuts)):
        path = tmp_path / f"{number}.jsonl"
        path.write_bytes(whole[:cut])
        rows = make(path, tmp_path)
        assert path.read_bytes() == whole, cut
        assert len(rows) == COUNT


def test_generate_traces_never_cuts_more_than_a_row(whole, tmp_path):
    """Without line feeds all the rows together would pass for a torn one."""
    path = tmp_path / "traces.jsonl"
    path.write_bytes(whole.replace(b"\n", b"\r"))
    with pytest.raises(TraceFileError, match="line feed"):
        make(path, tmp_path)
    assert path.read_bytes() == whole.replace(b"\n", b"\r")


def test_generate_traces_finished_file_costs_nothing(
    whole, tmp_path, monkeypatch
):
    path = tmp_path / "traces.jsonl"
    path.write_bytes(whole)
    monkeypatch.setattr(module, "generate", None)  # would raise
    assert len(make(path, tmp_path)) == COUNT
    assert path.read_bytes() == whole


def test_generate_traces_continues_to_a_higher_limit(tmp_path):
    path = tmp_path / "traces.jsonl"
    make(path, tmp_path, 5)
    five = path.read_bytes()
    rows = make(path, tmp_path)
    assert path.read_bytes().startswith(five)
    assert [r["id"] for r in rows] == [p["id"] for p in tiny.problems(COUNT)]


def test_generate_traces_a_kill_costs_few_batches(tmp_path, monkeypatch):
    """What is finished is on disk before the next chunk is begun."""
    path = tmp_path / "traces.jsonl"
    lines_before = []
    inner = module.generate

    def spy(model, tokenizer, prompts, **options):
        lines_before.append(path.read_bytes().count(b"\n"))
        assert len(prompts) <= 4 * 2
        return inner(model, tokenizer, prompts, **options)

    monkeypatch.setattr(module, "generate", spy)
    make(path, tmp_path, generation_batch=2)
    assert lines_before == [0, 8]


def test_load_traces_line_separators_stay_inside_a_line(tmp_path):
    path = tmp_path / "traces.jsonl"
    text = "<think>\na\u2028b\x85c\x0bd\n</think>\n\n5"
    first, second = tiny.traces(2)
    for row in ({**first, "qwen3_answer": text}, second):
        module.append(path, json.dumps(row, ensure_ascii=False) + "\n")
    assert path.read_bytes().count(b"\n") == 2
    rows = load_traces(path)
    assert rows[0]["qwen3_answer"] == text and len(rows) == 2


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGKILL")
def test_generate_traces_survives_sigkill(tmp_path):
    """Killed at random moments and started again until it is done."""
    output = tmp_path / "traces.jsonl"
    worker = Path(__file__).parent / "trace_worker.py"

    def start(path: Path) -> subprocess.Popen:
        folder = str(tiny.folder("mini-qwen3"))
        command = [sys.executable, str(worker), folder, str(path), "2", "32"]
        return subprocess.Popen(command, cwd=ROOT)

    rng = random.Random(time.time_ns())
    kills, sizes = 0, []
    for attempt in range(12):
        process = start(output)
        goal = (sizes[-1] if sizes else 0) + rng.randrange(1, 9_000)
        while process.poll() is None:
            size = output.stat().st_size if output.exists() else 0
            if size >= goal and kills < 3:
                process.send_signal(signal.SIGKILL)
                kills += 1
                break
            time.sleep(rng.random() / 100)
        status = process.wait()
        sizes.append(output.stat().st_size)
        if status == 0:
            break
        assert status == -signal.SIGKILL, attempt
    assert kills == 3 and sizes == sorted(sizes)
    reference = tmp_path / "reference.jsonl"
    assert start(reference).wait() == 0
    assert output.read_bytes() == reference.read_bytes()
    assert reference.read_bytes().count(b"\n") == 48


# --- refused, and left as it was ---------------------------------------------


def refused(path: Path, folder: Path, content: bytes, **options: Any) -> str:
    """The sentence that continuing this file is refused with."""
    path.write_bytes(content)
    with pytest.raises(TraceFileError) as caught:
        make(path, folder, **options)
    assert path.read_bytes() == content
    message = str(caught.value)
    assert path.name in message and str(folder) not in message
    return message


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        ({"seed": 8}, ["line 1", "sampling", "'seed': 8"]),
        ({"sampling_temperature": 0.7}, ["line 1", "sampling", "0.7"]),
        ({"max_new_tokens": 17}, ["line 1", "other problems or settings"]),
        ({"count": 3}, ["holds 14 traces", "only 3 problems"]),
    ],
)
@pytest.mark.parametrize("cut", [0, 20])
def test_generate_traces_refuses_other_settings(
    whole, tmp_path, options, parts, cut
):
    if "count" in options and cut:
        parts = ["holds 13 traces", "only 3 problems"]
    content = whole[: len(whole) - cut]
    message = refused(tmp_path / "t.jsonl", tmp_path, content, **options)
    assert all(part in message for part in parts), message
    assert "name another file" in message.lower()


def test_generate_traces_refuses_a_teacher_that_was_retrained(
    whole, tmp_path, monkeypatch
):
    """The folder's name is the same, the weights are not."""
    monkeypatch.setattr(module, "weights_hash", lambda _: "0" * 64)
    message = refused(tmp_path / "t.jsonl", tmp_path, whole)
    assert "teacher_sha256" in message and "'000000000000'" in message


@pytest.mark.parametrize("field", ["id", "question", "gold"])
def test_generate_traces_refuses_other_problems(whole, tmp_path, field):
    rows = [json.loads(line) for line in whole.splitlines()]
    rows[2][field] = "something else"
    content = "".join(json.dumps(row) + "\n" for row in rows).encode()
    message = refused(tmp_path / "t.jsonl", tmp_path, content)
    assert f"t.jsonl, line 3: {field} is 'something else'" in message


@pytest.mark.parametrize(
    "content",
    [
        b"shopping list\nmilk\n",
        b"a text without an end of line",
        b"\xff\xfe\n",
        b'{"id": "x", "text": "another kind of line"}\n',
    ],
)
def test_generate_traces_refuses_a_foreign_file(tmp_path, content):
    refused(tmp_path / "t.jsonl", tmp_path, content)


# --- a disk that fails -------------------------------------------------------


def test_generate_traces_full_disk_keeps_what_was_there(
    whole, tmp_path, monkeypatch
):
    path = tmp_path / "t.jsonl"
    begun = whole[: whole.index(b"\n") + 1]
    path.write_bytes(begun)
    calls = iter(range(99))
    real = os.fsync

    def full(descriptor):
        if next(calls) == 3:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(descriptor)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="t.jsonl: No space left"):
        make(path, tmp_path)
    assert path.read_bytes().startswith(begun)
    monkeypatch.undo()
    make(path, tmp_path)
    assert path.read_bytes() == whole


def test_generate_traces_no_write_access_is_said_before_the_work(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(module, "generate", None)  # would raise
    blocked = tmp_path / "blocked"
    blocked.write_text("a file where a folder should be")
    with pytest.raises(OSError, match="cannot write t.jsonl"):
        make(blocked / "t.jsonl", tmp_path)

    def denied(*_, **__):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "open", denied)
    with pytest.raises(OSError, match="t.jsonl: Permission denied"):
        make(tmp_path / "t.jsonl", tmp_path)


def test_write_atomic_full_disk_leaves_the_old_file(tmp_path, monkeypatch):
    from helpers.profiles import write_atomic

    path = write_atomic(tmp_path / "log.json", "old")
    assert path.stat().st_mode & 0o444 == 0o444

    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="log.json: No space.*unchanged"):
        write_atomic(path, "new")
    assert path.read_text() == "old"
    with pytest.raises(UnicodeEncodeError):
        write_atomic(path, "\ud800")
    assert [p.name for p in tmp_path.iterdir()] == ["log.json"]


def test_teacher_messages_use_the_profiles_wording():
    full = tiny.PROFILES["full"]
    [message] = teacher_messages("1 + 1? {x}", full)
    assert message["content"].startswith("1 + 1? {x}\n")
    assert "\\boxed{}" in message["content"]
