"""Reading, auditing and filtering trace files."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from helpers.answers import split_trace
from helpers.files import read_lines
from helpers.profiles import Profile

FIELDS = {
    "id": str,
    "question": str,
    "gold": str,
    "qwen3_answer": str,
    "finish_reason": str,
    "completion_tokens": int,
    "correct": bool,
    "sampling": dict,
}


class TraceFileError(ValueError):
    """A trace file that cannot be used; names file, line and cure."""


def read_traces(path: Path) -> list[dict]:
    """Every row of a trace file, checked; raises TraceFileError."""
    try:
        rows = check_lines(read_lines(path), path.name)
    except FileNotFoundError as error:
        raise TraceFileError(
            f"{path.name} does not exist. Run notebook 02, or "
            "`python3 -m helpers traces`, to make it."
        ) from error
    except (OSError, UnicodeDecodeError) as error:
        raise TraceFileError(
            f"{path.name} cannot be read ({type(error).__name__}). Name a "
            "trace file that you may read."
        ) from error
    if not rows:
        raise TraceFileError(
            f"{path.name} is empty. Delete it and run "
            "`python3 -m helpers traces` again."
        )
    return rows


def check_lines(lines: list[str], name: str) -> list[dict]:
    """Parsed lines of the file `name`; no id may come twice."""
    rows: list[dict] = []
    first_line: dict[str, int] = {}
    for number, line in enumerate(lines, start=1):
        row = check_row(line, f"{name}, line {number}")
        first = first_line.setdefault(row["id"], number)
        if first != number:
            raise TraceFileError(
                f"{name}, line {number}: the id {row['id']!r} stands on "
                f"line {first} already. Delete one of the two lines."
            )
        rows.append(row)
    return rows


def check_row(line: str, where: str) -> dict:
    """One parsed line with every field of the right type."""
    try:
        row = json.loads(line)
    except ValueError as error:
        raise TraceFileError(
            f"{where}: not JSON ({error}). The line is broken or cut off; "
            "delete it, and a second run makes that trace again."
        ) from error
    if not isinstance(row, dict):
        raise TraceFileError(f"{where}: expected an object, got {line[:40]}")
    for field, kind in FIELDS.items():
        if type(row.get(field)) is not kind:
            raise TraceFileError(
                f"{where}: field {field!r} is missing or no {kind.__name__}. "
                "This is no trace file of this course; name another file."
            )
    return row


def load_traces(path: Path) -> Any:
    """A trace file as a datasets.Dataset; TraceFileError names the line."""
    from datasets import Dataset

    return Dataset.from_list(read_traces(Path(path)))


def answered(path: Path, problems: list[dict], profile: Profile) -> bool:
    """Whether the file answers the problems, in order, whoever wrote it.

    Any backend and any seed, with the profile's sampling settings. Raises
    TraceFileError for a broken file.
    """
    if not path.exists():
        return False
    wanted = {**profile.sampling(0), "seed": None}
    found = [
        (row["id"], row["question"], row["gold"])
        + tuple({**row["sampling"], "seed": None}.get(name) for name in wanted)
        for row in read_traces(path)
    ]
    settings = tuple(wanted.values())
    return found == [
        (problem["id"], problem["question"], problem["answer"], *settings)
        for problem in problems
    ]


def loops(text: str, *, size: int = 8, times: int = 4) -> bool:
    """Whether a run of `size` words comes back `times` times or more."""
    words = text.split()
    runs = Counter(
        tuple(words[i : i + size]) for i in range(len(words) - size + 1)
    )
    return bool(runs) and max(runs.values()) >= times


def faults(row: dict) -> list[str]:
    """What is wrong with one trace, worst first; empty for a sound one."""
    text = row["qwen3_answer"]
    trace = split_trace(text)
    found = {
        "cut by the token limit": row["finish_reason"] == "length",
        "thought not closed": not trace.closed,
        "tags doubled": text.count("<think>") > 1
        or text.count("</think>") > 1,
        "thought empty": trace.closed and not (trace.thinking or "").strip(),
        "answer empty": trace.closed and not trace.answer.strip(),
        "loops": loops(text),
        "wrong answer": not row["correct"],
    }
    return [name for name, holds in found.items() if holds]


def audit_traces(
    rows: Iterable[dict], *, test_questions: Iterable[str] = ()
) -> dict[str, int | float]:
    """Counts of everything that can be wrong, and lengths in tokens."""
    rows = list(rows)
    counts = Counter(fault for row in rows for fault in faults(row))
    lengths = sorted(row["completion_tokens"] for row in rows) or [0]
    test = set(test_questions)
    questions = Counter(row["question"] for row in rows)
    names = (
        "cut by the token limit",
        "thought not closed",
        "tags doubled",
        "thought empty",
        "answer empty",
        "loops",
        "wrong answer",
    )
    return {
        "traces": len(rows),
        "correct": sum(row["correct"] for row in rows),
        **{name: counts[name] for name in names},
        "repeated questions": sum(n - 1 for n in questions.values()),
        "questions of the test": sum(q in test for q in questions),
        "tokens, median": lengths[len(lengths) // 2],
        "tokens, longest": lengths[-1],
        "tokens, all": sum(lengths),
    }


def filter_traces(
    rows: Iterable[dict],
    *,
    correct_only: bool = True,
    max_tokens: int | None = None,
) -> tuple[list[dict], Counter[str]]:
    """The traces worth training on, and why the others were dropped.

    Unfinished, empty or looping traces always go; wrong ones go with
    `correct_only`. The counter names one reason, the worst, per trace.
    """
    kept: list[dict] = []
    reasons: Counter[str] = Counter()
    for row in rows:
        found = faults(row)
        if not correct_only:
            found = [fault for fault in found if fault != "wrong answer"]
        if max_tokens is not None and row["completion_tokens"] > max_tokens:
            found.append(f"longer than {max_tokens} tokens")
        if found:
            reasons[found[0]] += 1
        else:
            kept.append(row)
    return kept, reasons
