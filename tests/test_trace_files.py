"""helpers.traces: what is read back, audited and filtered."""

from __future__ import annotations

import json
from typing import Any

import pytest
import tiny

from helpers.traces import (
    TraceFileError,
    audit_traces,
    filter_traces,
    load_traces,
    loops,
)

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


@pytest.mark.parametrize(
    ("line", "part"),
    [
        ('{"id": "x", "quest', "JSON"),
        ("", "JSON"),
        ("[1]", "TypeError"),
        ('{"text": "hello"}', "'id'"),
        (json.dumps(row(id="x", completion_tokens=True)), "no int"),
        (json.dumps(row()), "came before"),
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
