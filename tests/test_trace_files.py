"""helpers.traces: what is read back, audited and filtered."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import tiny

from helpers.problems import load_problems
from helpers.scale.shards import answered
from helpers.traces import (
    TraceFileError,
    audit_traces,
    filter_traces,
    load_traces,
    loops,
)

SENTENCE = "the same eight words come back again and "


def row(**changes: Any) -> dict:
    """A sound trace, with changes."""
    return {**tiny.traces(1)[0], **changes}


def write_rows(path: Path, rows: list[dict]) -> Path:
    lines = [json.dumps(r, ensure_ascii=False) + "\n" for r in rows]
    path.write_text("".join(lines), encoding="utf-8", newline="\n")
    return path


@pytest.mark.parametrize(
    ("line", "part"),
    [
        ('{"id": "x", "quest', "JSON"),
        ("", "JSON"),
        ("[1]", "TypeError"),
        ('{"text": "hello"}', "'id'"),
        (json.dumps(row(id="x", correct="yes")), "'correct' is no bool"),
        (json.dumps(row(id="x", completion_tokens=True)), "no int"),
        (json.dumps(row()), "came before"),
    ],
)
def test_load_traces_names_the_line_that_is_bad(tmp_path, line, part):
    path = tmp_path / "t.jsonl"
    path.write_text(f"{json.dumps(row())}\n{line}\n", encoding="utf-8")
    with pytest.raises(TraceFileError, match="^t.jsonl, line 2:.*" + part):
        load_traces(path)


def test_load_traces_line_separators_stay_inside_a_line(tmp_path):
    text = "<think>\na\u2028b\x85c\x0bd\n</think>\n\n5"
    traces = [row(qwen3_answer=text), row(id="2")]
    path = write_rows(tmp_path / "t.jsonl", traces)
    assert path.read_bytes().count(b"\n") == 2
    assert load_traces(path)["qwen3_answer"][0] == text


def test_load_traces_takes_the_last_line_only_if_it_is_whole(tmp_path):
    path = write_rows(tmp_path / "t.jsonl", tiny.traces(3))
    path.write_bytes(path.read_bytes()[:-1])  # an editor took the newline
    assert len(load_traces(path)) == 3
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(TraceFileError, match="line 3"):
        load_traces(path)


def test_load_traces_refuses_an_empty_and_a_missing_file(tmp_path):
    path = write_rows(tmp_path / "t.jsonl", [])
    with pytest.raises(TraceFileError, match="t.jsonl, line 1"):
        load_traces(path)
    for gone in (tmp_path / "gone.jsonl", tmp_path):
        with pytest.raises(TraceFileError, match=f"{gone.name} cannot.*02"):
            load_traces(gone)


def test_shipped_traces_are_whole_and_none_of_them_loops():
    profile = tiny.PROFILES["mini"]
    problems = load_problems("mini", "train", limit=profile.traces)
    assert answered(profile.traces_path, problems, profile)
    audit = audit_traces(load_traces(profile.traces_path))
    assert audit["loops"] == 0
    assert audit["traces"] - audit["correct"] == audit["wrong answer"]


GOOD = "<think>\n6 + 6 = 12.\n</think>\n\nThe answer is 12."
CUT = {"finish_reason": "length", "completion_tokens": 160, "correct": False}
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


def test_audit_traces_counts_every_fault():
    assert audit_traces(ROWS, test_questions=["q1", "q9", "q77"]) == {
        "traces": 9,
        "correct": 7,
        "cut by the token limit": 1,
        "thought not closed": 2,
        "tags doubled": 1,
        "thought empty": 1,
        "answer empty": 1,
        "loops": 1,
        "wrong answer": 2,
        "repeated questions": 1,
        "questions of the test": 2,
        "tokens, median": 60,
        "tokens, longest": 160,
        "tokens, all": 160 + 100 + 7 * 60,
    }
    assert str(audit_traces(ROWS[:1])["loops"]) == "0"  # shown as a number
    assert audit_traces([])["traces"] == audit_traces([])["tokens, all"] == 0


def test_filter_traces_one_reason_a_trace():
    worth, reasons = filter_traces(ROWS)
    assert [r["id"] for r in worth] == ["1", "9"]
    assert reasons == {
        "wrong answer": 1,
        "cut by the token limit": 1,
        "answer empty": 1,
        "thought empty": 1,
        "tags doubled": 1,
        "loops": 1,
        "thought not closed": 1,
    }
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
        ("", False),
    ],
)
def test_loops_is_repetition_in_a_row(text, expected):
    assert loops(text) is expected


def test_filter_traces_keeps_a_thought_that_quotes_its_question():
    """Five times, with other words in between: it is no loop."""
    steps = [f"{SENTENCE} {n} of the steps." for n in range(5)]
    text = f"<think>\n{' '.join(steps)}\n</think>\n\nThe answer is 12."
    assert len(filter_traces([row(qwen3_answer=text)])[0]) == 1


def test_answered_whoever_wrote_the_file(tmp_path):
    profile = tiny.profile(tmp_path)
    problems = tiny.problems(3)
    record = {"backend": "vllm", **asdict(profile.sampling(8))}  # another seed
    rows = [trace | {"sampling": record} for trace in tiny.traces(3)]
    path = tmp_path / "t.jsonl"
    assert not answered(path, problems, profile)
    assert answered(write_rows(path, rows), problems, profile)
    assert not answered(path, problems[:2], profile)
    for change in (
        {"sampling": record | {"temperature": 2.0}},
        {"sampling": record | {"max_new_tokens": 9}},
        {"question": "another?"},
    ):
        write_rows(path, [rows[0] | change, *rows[1:]])
        assert not answered(path, problems, profile)
