"""helpers.traces: safe to kill, continued or refused; read, and filtered."""

import copy
import errno
import json
import os
import random
import signal
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import forked
import pytest
import tiny

from helpers import CourseError
from helpers import traces as module
from helpers.files.disk import alone, write_atomic
from helpers.models import ModelError, weights_hash
from helpers.traces import (
    TraceFileError,
    audit_traces,
    filter_traces,
    generate_traces,
    load_traces,
    loops,
)

COUNT = 14  # a chunk is 12 problems here: one and a bit
SENTENCE = "the same eight words come back again and "
GOOD = "<think>\n6 + 6 = 12.\n</think>\n\nThe answer is 12."
CUT = {"finish_reason": "length", "completion_tokens": 160, "correct": False}


def row(**changes: Any) -> dict:
    """A sound trace, with changes."""
    return {**tiny.traces(1)[0], **changes}


ROWS = [
    row(id="1", question="q1"),
    row(id="2", question="q2", correct=False),
    row(id="3", question="q3", qwen3_answer="<think>\nand so on", **CUT),
    row(id="4", question="q4", qwen3_answer="<think>\n6\n</think>\n\n"),
    row(id="5", question="q5", qwen3_answer="<think>\n\n</think>\n\n12."),
    row(id="6", question="q5", qwen3_answer="<think>" + GOOD),
    row(id="7", question="q7", qwen3_answer=GOOD + SENTENCE * 5),
    row(id="8", question="q8", qwen3_answer="The answer is 12."),
    row(id="9", question="q9", completion_tokens=100),
]


def make(path: Path, folder: Path, count: int = COUNT, **options: Any) -> Any:
    """Let the tiny teacher, or this one, answer the first problems."""
    teacher = options.pop("teacher", tiny.teacher())
    return generate_traces(
        tiny.problems(count),
        teacher.model,
        teacher.tokenizer,
        path,
        seed=options.pop("seed", 7),
        profile=tiny.profile(folder, **options),
        progress=False,
    )


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> bytes:
    """The file that an uninterrupted run writes."""
    folder = tmp_path_factory.mktemp("whole")
    make(folder / "traces.jsonl", folder)
    return (folder / "traces.jsonl").read_bytes()


@pytest.fixture
def path(whole, tmp_path) -> Path:
    """That file, for a test to break or to continue."""
    path = tmp_path / "t.jsonl"
    path.write_bytes(whole)
    return path


def refused(path: Path, **options: Any) -> str:
    """The sentence with which continuing is refused, the file untouched."""
    content = path.read_bytes()
    with pytest.raises(TraceFileError) as caught:
        make(path, path.parent, **options)
    assert path.read_bytes() == content
    message = str(caught.value)
    assert path.name in message and str(path.parent) not in message
    return message


def test_generate_traces_rows_are_complete(path):
    rows = load_traces(path)
    problems = tiny.problems(COUNT)
    assert [r["id"] for r in rows] == [p["id"] for p in problems]
    assert [r["gold"] for r in rows] == [p["answer"] for p in problems]
    assert all(r["qwen3_answer"].startswith("<think>\n") for r in rows)
    record = rows[0]["sampling"]
    assert record == {
        "teacher": "mini-qwen3",
        "teacher_sha256": weights_hash(tiny.teacher().model)[:12],
        "template_sha256": record["template_sha256"],
        "prompt": "Question: {question}",
        **asdict(tiny.profile(path.parent).sampling(seed=7)),
    }
    assert len(set(rows["qwen3_answer"])) > 10
    cut = [r for r in rows if r["finish_reason"] == "length"]
    assert {r["completion_tokens"] for r in cut} == {16}


def test_generate_traces_refuses_another_teacher(path, monkeypatch):
    """Of the same name: another template, other weights, or no numbers."""
    teacher = copy.deepcopy(tiny.teacher())
    teacher.tokenizer.chat_template += "{# the same prompts #}"
    assert "template_sha256" in refused(path, teacher=teacher)
    teacher = copy.deepcopy(tiny.teacher())
    weights = next(teacher.model.parameters()).data[0]
    weights *= 1.01
    assert "teacher_sha256" in refused(path, teacher=teacher)
    weights[:] = float("nan")
    new = path.with_name("new.jsonl")
    with pytest.raises(ModelError, match="holds NaN"):
        make(new, path.parent, teacher=teacher)
    assert not new.exists()


def test_generate_traces_resumes_from_any_byte(whole, path):
    """Every kind of stump a kill can leave gives the same file in the end."""
    rng = random.Random(2)
    ends = [i for i, byte in enumerate(whole) if byte == ord("\n")]
    cuts = {0, 1, 12, len(whole) - 1, ends[0], ends[4] + 1, ends[11] + 1}
    cuts |= {rng.randrange(len(whole)) for _ in range(5)}
    for cut in cuts:
        path.write_bytes(whole[:cut])
        assert len(make(path, path.parent)) == COUNT
        assert path.read_bytes() == whole, cut
    path.unlink()
    make(path, path.parent, 5)
    five, wanted = path.read_bytes(), [p["id"] for p in tiny.problems(COUNT)]
    assert list(make(path, path.parent)["id"]) == wanted  # a higher limit
    assert path.read_bytes().startswith(five)


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGKILL")
def test_generate_traces_survives_sigkill(tmp_path):
    """Killed at random moments and started again until it is done."""
    output, reference = tmp_path / "killed.jsonl", tmp_path / "whole.jsonl"
    teacher = str(tiny.folder(tiny.TEACHER))
    rng = random.Random(time.time_ns())
    kills, sizes = 0, [0]
    for _ in range(12):
        process = forked.start(forked.write_traces, teacher, output)
        goal = sizes[-1] + rng.randrange(1, 9_000)
        while process.is_alive() and kills < 3:
            if output.exists() and output.stat().st_size >= goal:
                process.kill()
                kills += 1
                break
            time.sleep(rng.random() / 100)
        process.join(120)
        sizes.append(output.stat().st_size)
        if process.exitcode == 0:
            break
        assert process.exitcode == -signal.SIGKILL
    assert kills == 3 and sizes == sorted(sizes)
    process = forked.start(forked.write_traces, teacher, reference)
    process.join(120)
    assert output.read_bytes() == reference.read_bytes()
    assert reference.read_bytes().count(b"\n") == 48


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"seed": 8}, "line 1: sampling"),
        ({"sampling_temperature": 0.7}, "line 1: sampling"),
        ({"max_new_tokens": 17}, "other problems or settings"),
        ({"teacher_prompt": "Now: {question}"}, "line 1: sampling"),
        ({"count": 3}, "only 3 problems"),
    ],
)
def test_generate_traces_refuses_other_settings(path, options, named):
    assert named in refused(path, **options)
    path.write_bytes(path.read_bytes()[:-20])
    refused(path, **options)  # and the torn line is not cut off


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        (lambda _: b"shopping list\nmilk\n", ""),
        (lambda _: b"a text without an end", ""),
        (lambda _: b"\xff\xfe\n", ""),
        (lambda rows: rows.partition(b"\n")[2], "line 1: id is 'tiny-001'"),
        (lambda rows: rows.replace(b"\n", b"\r\n"), "line feed"),
        # all the rows would pass for one that a kill has torn
        (lambda rows: rows.replace(b"\n", b"\r"), "line feed"),
    ],
)
def test_generate_traces_refuses_a_foreign_file(path, damage, named):
    path.write_bytes(damage(path.read_bytes()))
    assert named in refused(path)


def test_generate_traces_wants_a_file_of_its_own(path):
    with alone(path), pytest.raises(CourseError, match="another run is"):
        make(path, path.parent)
    places = [path.parent]
    if sys.platform == "linux":  # others have no such pipes or devices
        places += [path.with_name("pipe.jsonl"), Path("/dev/full")]
        os.mkfifo(places[1])
    for place in places:
        with pytest.raises(CourseError, match="no ordinary file"):
            make(place, path.parent)


def test_what_cannot_be_written_is_said_before_the_work(path, monkeypatch):
    monkeypatch.setattr(module, "generate", None)  # would raise
    assert len(make(path, path.parent)) == COUNT  # a finished file is read
    with pytest.raises(OSError, match="cannot write t.jsonl"):
        make(path / "t.jsonl", path.parent)  # a file where a folder should be


def test_write_atomic_full_disk_leaves_the_old_file(tmp_path, monkeypatch):
    path = write_atomic(tmp_path / "log.json", "old")

    def full_disk(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(OSError, match="log.json: No space.*unchanged"):
        write_atomic(path, "new")
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["log.json"]


@pytest.mark.parametrize(
    ("line", "part"),
    [
        ('{"id": "x", "quest', "JSON"),
        ("", "JSON"),
        ("[1]", "TypeError"),
        ('{"text": "hello"}', "'id'"),
        (json.dumps(row(id="x", completion_tokens=True)), "no int"),
        (json.dumps(row()), "came before"),
        (json.dumps(row(id="x", completion_tokens=10**30)), "out of range"),
        (json.dumps(row(id="x", completion_tokens=-1)), "out of range"),
        (json.dumps(row(id="x", question="\ud800")), "surrogates"),
        ("[" * 100_000, "RecursionError"),
    ],
)
def test_load_traces_names_the_line_that_is_bad(tmp_path, line, part):
    path = tmp_path / "t.jsonl"
    path.write_text(f"{json.dumps(row())}\n{line}\n", encoding="utf-8")
    with pytest.raises(TraceFileError, match="^t.jsonl, line 2:.*" + part):
        load_traces(path)
    with pytest.raises(TraceFileError, match="gone.jsonl cannot.*02"):
        load_traces(tmp_path / "gone.jsonl")


def test_load_traces_line_separators_stay_inside_a_line(tmp_path):
    text = "<think>\na\u2028b\x85c\x0bd\n</think>\n\n5"
    path = tmp_path / "t.jsonl"
    line = json.dumps(row(qwen3_answer=text), ensure_ascii=False)
    path.write_bytes(line.encode())  # an editor took the newline at the end
    assert load_traces(path)["qwen3_answer"] == [text]


def test_shipped_traces_are_whole_and_none_of_them_loops():
    audit = audit_traces(load_traces(tiny.PROFILES["mini"].traces_path))
    assert audit["loops"] == 0
    assert audit["traces"] - audit["correct"] == audit["wrong answer"]


def test_audit_traces_counts_every_fault():
    once = "cut by the token limit", "tags doubled", "thought empty"
    once += "answer empty", "loops", "repeated questions"
    twice = "thought not closed", "wrong answer", "questions of the test"
    assert audit_traces(ROWS, test_questions=["q1", "q9", "q77"]) == {
        **dict.fromkeys(once, 1),
        **dict.fromkeys(twice, 2),
        "traces": 9,
        "correct": 7,
        "tokens, median": 60,
        "tokens, longest": 160,
        "tokens, all": 160 + 100 + 7 * 60,
    }
    assert str(audit_traces(ROWS[:1])["loops"]) == "0"  # shown as a number
    assert audit_traces([])["traces"] == audit_traces([])["tokens, all"] == 0


def test_filter_traces_one_reason_a_trace():
    worth, reasons = filter_traces(ROWS)
    assert [r["id"] for r in worth] == ["1", "9"]
    assert set(reasons.values()) == {1} and reasons.total() == 7
    assert "thought not closed" in reasons and "thought empty" in reasons
    worth, reasons = filter_traces(ROWS, correct_only=False, max_tokens=99)
    assert [r["id"] for r in worth] == ["1", "2"]
    assert reasons["longer than 99 tokens"] == 1
    assert "wrong answer" not in reasons


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (SENTENCE * 4, True),
        (f"First, {SENTENCE * 4} and on", True),
        (SENTENCE * 3, False),
        ("wait, no. " * 18, True),  # fewer words, more often
        (" ".join(map(str, range(50))) + " yes" * 8, False),
        ((SENTENCE + "but first something else. ") * 4, True),
        # it quotes its question, with other words in between
        (" ".join(f"{SENTENCE} {n} of the steps." for n in range(5)), False),
        ("", False),
    ],
)
def test_loops_is_repetition_in_a_row(text, expected):
    assert loops(text) is expected
