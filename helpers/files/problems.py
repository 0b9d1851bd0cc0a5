"""A problem file: JSON lines, checked one by one."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from helpers import CourseError
from helpers.answers import gold_answer
from helpers.files.disk import read_lines

LONGEST = 20_000  # characters of a question or an answer
SURROGATE = re.compile("[\ud800-\udfff]")  # half a character
EXAMPLE = '{"question": "...", "answer": "... #### 72"}'
Problem = dict[str, Any]


class ProblemFileError(CourseError):
    """A problem file that cannot be used; names file, line and cure."""


def read_problems(path: Path) -> list[Problem]:
    """Read and check one JSON-lines file; ids are made where missing."""
    try:
        lines = read_lines(path)
    except (OSError, UnicodeDecodeError) as error:
        raise ProblemFileError(
            f"{path.name} cannot be read ({type(error).__name__}). Set "
            "DISTILL_PROBLEMS to a UTF-8 text file that you may read, or "
            "unset it to use the problems that the course ships."
        ) from error
    problems: list[Problem] = []
    lines_of: dict[str, int] = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        where = f"{path.name}, line {number}"
        problem = parse_problem(line, where)
        name = str(problem.get("id", f"{path.stem}-{len(problems):05d}"))
        if name in lines_of:
            raise ProblemFileError(
                f"{where}: the id {name!r} stands on line {lines_of[name]} "
                "already. Give every problem its own id, or none at all."
            )
        lines_of[name] = number
        problems.append({**problem, "id": name})
    if not problems:
        raise ProblemFileError(
            f"{path.name} holds no problem. Each line should be {EXAMPLE}."
        )
    return problems


def parse_problem(line: str, where: str) -> Problem:
    """One line as a problem, or a ProblemFileError that says what it lacks."""
    try:
        problem = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise ProblemFileError(
            f"{where}: not JSON ({error}). The line is broken or cut off; "
            "restore the file or delete the line."
        ) from error
    for field in ("question", "answer"):
        value = problem.get(field) if isinstance(problem, dict) else None
        if not isinstance(value, str) or not value.strip():
            raise ProblemFileError(
                f"{where}: no text in {field!r}. A problem needs a question "
                f"and an answer: {EXAMPLE}."
            )
        if len(value) > LONGEST or SURROGATE.search(value):
            raise ProblemFileError(
                f"{where}: {field!r} is longer than {LONGEST:,} characters, "
                "or holds half a character. Shorten it, or delete the line."
            )
    try:
        problem["answer"].index("####")
        gold_answer(problem["answer"])
    except ValueError as error:
        raise ProblemFileError(
            f"{where}: the answer has no final `#### value` line, so nothing "
            "can be scored. Add it, as GSM8K does."
        ) from error
    return problem
