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
    content = json.dumps(row()) + "\n" + line + "\n"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(TraceFileError) as caught:
        load_traces(path)
    message = str(caught.value)
    assert message.startswith("t.jsonl, line 2:") and part in message
    assert path.read_text(encoding="utf-8") == content


def test_load_traces_takes_the_last_line_only_if_it_is_whole(tmp_path):
    path = write_rows(tmp_path / "t.jsonl", tiny.traces(3))
    path.write_bytes(path.read_bytes()[:-1])  # an editor took the newline
    assert len(load_traces(path)) == 3
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(TraceFileError, match="line 3"):
        load_traces(path)


def test_load_traces_refuses_an_empty_and_a_missing_file(tmp_path):
    path = tmp_path / "t.jsonl"
    path.touch()
    with pytest.raises(TraceFileError, match="t.jsonl is empty"):
        load_traces(path)
    with pytest.raises(TraceFileError, match="gone.jsonl.*02"):
        load_traces(tmp_path / "gone.jsonl")
    with pytest.raises(TraceFileError, match="cannot be read"):
        load_traces(tmp_path)


def test_shipped_traces_are_whole_and_none_of_them_loops():
    profile = tiny.PROFILES["mini"]
    problems = load_problems("mini", "train", limit=profile.traces)
    assert answered(profile.traces_path, problems, profile)
    audit = audit_traces(load_traces(profile.traces_path))
    assert audit["loops"] == 0
    assert audit["traces"] - audit["correct"] == audit["wrong answer"]


# --- audit and filter --------------------------------------------------------

GOOD = "<think>\n6 + 6 = 12.\n</think>\n\nThe answer is 12."
ROWS = [
    row(id="1", question="q1"),
    row(id="2", question="q2", correct=False),
    row(
        id="3",
        question="q3",
        qwen3_answer="<think>\nand so on",
        finish_reason="length",
        completion_tokens=160,
        correct=False,
    ),
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


def test_audit_traces_of_nothing():
    counts = audit_traces([])
    assert counts["traces"] == 0 and counts["tokens, longest"] == 0


def test_filter_traces_one_reason_a_trace():
    kept, reasons = filter_traces(ROWS)
    assert [r["id"] for r in kept] == ["1", "9"]
    assert reasons == {
        "wrong answer": 1,
        "cut by the token limit": 1,
        "answer empty": 1,
        "thought empty": 1,
        "tags doubled": 1,
        "loops": 1,
        "thought not closed": 1,
    }
    assert len(kept) + sum(reasons.values()) == len(ROWS)


def test_filter_traces_wrong_ones_and_long_ones():
    kept, reasons = filter_traces(ROWS, correct_only=False, max_tokens=99)
    assert [r["id"] for r in kept] == ["1", "2"]
    assert reasons["longer than 99 tokens"] == 1
    assert "wrong answer" not in reasons


@pytest.mark.parametrize(
    ("text", "wanted"),
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
def test_loops_is_repetition_in_a_row(text, wanted):
    assert loops(text) is wanted


def test_filter_traces_keeps_a_thought_that_quotes_its_question():
    """Four times, with other words in between: it is no loop."""
    thought = [f"{SENTENCE} {word} of the steps." for word in ("one", "two",
               "three", "four", "five")]  # fmt: skip
    text = f"<think>\n{' '.join(thought)}\n</think>\n\nThe answer is 12."
    assert len(filter_traces([row(qwen3_answer=text)])[0]) == 1


def test_answered_whoever_wrote_the_file(tmp_path):
    profile = tiny.profile(tmp_path)
    problems = tiny.problems(3)
    record = {"backend": "vllm", **asdict(profile.sampling(8))}  # another seed
    rows = [{**one, "sampling": record} for one in tiny.traces(3)]
    for one, problem in zip(rows, problems, strict=True):
        one |= {"id": problem["id"], "gold": problem["answer"]}
        one["question"] = problem["question"]
    path = tmp_path / "t.jsonl"
    assert not answered(path, problems, profile)
    assert answered(write_rows(path, rows), problems, profile)
    assert not answered(path, problems[:2], profile)
    assert not answered(write_rows(path, rows[:2]), problems, profile)
    for field, other in (("temperature", 2.0), ("max_new_tokens", 9)):
        rows[1] = {**rows[1], "sampling": {**record, field: other}}
        assert not answered(write_rows(path, rows), problems, profile)
    rows[1] = {**rows[1], "sampling": record, "question": "another?"}
    assert not answered(write_rows(path, rows), problems, profile)
