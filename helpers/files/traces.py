"""A trace file: its fields, what may be wrong with it, and where it goes on.

One JSON object a line, in the order of the problems.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from helpers import CourseError
from helpers.files.disk import ordinary

FIELDS = dict.fromkeys(
    ("id", "question", "gold", "qwen3_answer", "finish_reason"), str
) | {"completion_tokens": int, "correct": bool, "sampling": dict}
ROW_START = b'{"id": "'  # as json.dumps begins a row of FIELDS
NEWER = ("prompt", "template_sha256")  # older files do not record it


class TraceFileError(CourseError):
    """A trace file that cannot be used; names file, line and cure."""


def parse_rows(content: bytes, name: str) -> list[dict]:
    """Rows of the file `name`: every field of its type, no id twice."""
    rows: dict[str, dict] = {}
    lines = content.split(b"\n")  # JSON allows U+2028 and the like in a text
    for number, line in enumerate(lines[:-1], start=1):
        try:
            row = json.loads(line)
            for field, kind in FIELDS.items():
                if type(row[field]) is not kind:
                    raise TypeError(f"{field!r} is no {kind.__name__}")
                if kind is str:
                    row[field].encode()  # half a surrogate pair is no text
            if not 0 <= row["completion_tokens"] < 2**31:
                raise ValueError("completion_tokens is out of range")
            if row["id"] in rows:
                raise ValueError(f"the id {row['id']!r} came before")
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise TraceFileError(
                f"{name}, line {number}: {type(error).__name__}: {error}. "
                "`helpers traces --repair FILE` copies the good lines."
            ) from error
        rows[row["id"]] = row
    return list(rows.values())


def read_traces(path: Path) -> list[dict]:
    """Every row of a trace file, checked; raises TraceFileError."""
    try:
        content = ordinary(path).read_bytes()
    except OSError as error:
        raise TraceFileError(
            f"{path.name} cannot be read ({type(error).__name__}). Notebook "
            "02, or `python3 -m helpers traces`, makes trace files."
        ) from error
    return parse_rows(content.removesuffix(b"\n") + b"\n", path.name)


def load_traces(path: Path) -> Any:
    """A trace file as a datasets.Dataset; TraceFileError names the line."""
    from datasets import Dataset

    rows = read_traces(Path(path))
    try:
        return Dataset.from_list(rows)
    except (ArithmeticError, TypeError, ValueError) as error:
        reason = f"{path}: `sampling` is not alike in all lines: {error}"
        raise TraceFileError(reason) from error


def asked(problem: dict) -> dict[str, str]:
    """What a row repeats of its problem."""
    names = {"id": "id", "question": "question", "gold": "answer"}
    return {name: problem[source] for name, source in names.items()}


def check_fit(
    rows: list[dict], problems: list[dict], record: dict, name: str
) -> None:
    """Raises TraceFileError when the rows were made for something else."""
    if len(rows) > len(problems):
        raise TraceFileError(
            f"{name} holds {len(rows)} traces, but only {len(problems)} "
            "problems were asked for. Name another file, or raise the limit."
        )
    pairs = zip(rows, problems, strict=False)  # a begun file has fewer rows
    newer = {name: record[name] for name in NEWER if name in record}
    for number, (row, problem) in enumerate(pairs, start=1):
        row = row | {"sampling": newer | row["sampling"]}
        for field, value in (asked(problem) | {"sampling": record}).items():
            if row[field] != value:
                raise TraceFileError(
                    f"{name}, line {number}: {field} is {row[field]!r}, this "
                    f"run expects {value!r}. It was made for other problems "
                    "or settings: name another file, or delete this."
                )


def resume_point(path: Path, problems: list[dict], record: dict) -> int:
    """How many of the problems the file already answers, in order.

    A torn last line is cut off if it begins like a row and all before it
    fits; else TraceFileError is raised, and the file stays as it is.
    """
    content = ordinary(path).read_bytes() if path.exists() else b""
    end = content.rfind(b"\n") + 1
    rows, torn = parse_rows(content[:end], path.name), content[end:]
    check_fit(rows, problems, record, path.name)
    begun = torn.startswith(ROW_START[: len(torn)])
    if not begun or torn.count(ROW_START) > 1 or b"\r\n" in content:
        raise TraceFileError(
            f"{path.name} ends in what is no trace: {torn[:40]!r}. Name "
            "another file, or delete that line (lines end in a line feed)."
        )
    if torn:
        os.truncate(path, end)
    return len(rows)
