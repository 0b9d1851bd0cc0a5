"""Problems as every notebook sees them: mini, GSM8K, or your own file.

A problem is a dictionary with `id`, `question` and `answer`, the last one in
GSM8K's format: a worked solution, then `#### 72`. Mini problems also carry
`template` and `impossible`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from helpers import CourseError
from helpers.answers import gold_answer
from helpers.profiles import DATA, read_lines, revision_of

PROBLEMS = DATA / "problems"
SPLITS = ("train", "validation", "test", "held_out")
SMALLEST_FILE = 10
GSM8K_VALIDATION = 473  # GSM8K has no validation split: the end of its train

Problem = dict[str, Any]


class ProblemFileError(CourseError):
    """A problem file that cannot be used; names file, line and cure."""


def load_problems(
    source: str | Path, split: str, *, limit: int | None = None
) -> list[Problem]:
    """The problems of a split, in a fixed order.

    `source` is "mini" (shipped with the course), a folder with
    `<split>.jsonl`, a hub id such as "openai/gsm8k", or one `.jsonl` file:
    its last fifth is test, and nothing of it is ever trained on.
    Raises ProblemFileError, naming the file and line, for anything else.
    """
    if split not in SPLITS:
        raise ProblemFileError(
            f"unknown split {split!r}: choose one of {', '.join(SPLITS)}"
        )
    path = PROBLEMS if str(source) == "mini" else Path(source)
    if path.is_dir() and path.suffix != ".jsonl":
        problems = read_folder(path, split)
    elif split == "held_out":
        raise no_held_out(path.name)
    elif path.suffix == ".jsonl":
        problems = cut_file(path, split)
    else:
        problems = read_hub(str(source), split)
    return problems[:limit]


def no_held_out(name: str) -> ProblemFileError:
    """Templates that no model has met: only the mini lab keeps some back."""
    return ProblemFileError(
        f"{name} has no held-out templates; that split is the mini lab's"
    )


def read_folder(folder: Path, split: str) -> list[Problem]:
    """`<split>.jsonl`; without a validation file, the end of train."""
    file = folder / f"{split}.jsonl"
    train = folder / "train.jsonl"
    if file.exists() and split != "train":
        return read_problems(file)
    if split == "train" and (folder / "validation.jsonl").exists():
        return read_problems(train)
    if split in ("train", "validation") and train.exists():
        return cut_validation(read_problems(train), split)
    if split == "held_out" and train.exists():
        raise no_held_out(folder.name)
    files = sorted(f.name for f in folder.glob("*.jsonl")) or "no .jsonl file"
    raise ProblemFileError(
        f"{folder.name}/{file.name} does not exist (found: {files}). Name a "
        "folder that holds train.jsonl and test.jsonl, or one .jsonl file."
    )


def cut_file(file: Path, split: str) -> list[Problem]:
    """One file as three splits: its last fifth is test."""
    rows = read_problems(file)
    if len(rows) < SMALLEST_FILE:
        raise ProblemFileError(
            f"{file.name} holds {len(rows)} problems; to be cut into train, "
            f"validation and test it needs {SMALLEST_FILE}. Add some, or name "
            "a folder with train.jsonl and test.jsonl."
        )
    cut = len(rows) - len(rows) // 5
    return rows[cut:] if split == "test" else cut_validation(rows[:cut], split)


def cut_validation(rows: list[Problem], split: str) -> list[Problem]:
    """Split GSM8K's train file: its end is validation, the rest train."""
    size = min(GSM8K_VALIDATION, len(rows) // 5)
    cut = len(rows) - size
    return rows[cut:] if split == "validation" else rows[:cut]


def read_problems(path: Path) -> list[Problem]:
    """Read and check one JSON-lines file; ids are made where missing."""
    try:
        lines = read_lines(path)
    except FileNotFoundError as error:
        raise ProblemFileError(
            f"{path.name} does not exist. Check DISTILL_PROBLEMS, or unset "
            "it to use the problems that the course ships."
        ) from error
    except (OSError, UnicodeDecodeError) as error:
        raise ProblemFileError(
            f"{path.name} cannot be read ({type(error).__name__}). Name a "
            "UTF-8 text file that you may read."
        ) from error
    problems: list[Problem] = []
    lines_of: dict[str, int] = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        where = f"{path.name}, line {number}"
        problem = check_problem(line, where)
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
            f"{path.name} holds no problem. Each line should be "
            '{"question": "...", "answer": "... #### 72"}.'
        )
    return problems


def check_problem(line: str, where: str) -> Problem:
    """One parsed line, or a ProblemFileError that says what it lacks."""
    try:
        problem = json.loads(line)
    except ValueError as error:
        raise ProblemFileError(
            f"{where}: not JSON ({error}). The line is broken or cut off; "
            "restore the file or delete the line."
        ) from error
    for field in ("question", "answer"):
        value = problem.get(field) if isinstance(problem, dict) else None
        if not isinstance(value, str) or not value.strip():
            raise ProblemFileError(
                f"{where}: no text in {field!r}. A problem needs a question "
                'and an answer: {"question": "...", "answer": "... #### 72"}.'
            )
    try:
        scored = "####" in problem["answer"] and gold_answer(problem["answer"])
    except ValueError:
        scored = None
    if not scored:
        raise ProblemFileError(
            f"{where}: the answer has no final `#### value` line, so nothing "
            "can be scored. Add it, as GSM8K does."
        )
    return problem


def read_hub(name: str, split: str) -> list[Problem]:
    """GSM8K-shaped data from the Hugging Face hub."""
    from datasets import load_dataset

    part = "test" if split == "test" else "train"
    try:
        rows = load_dataset(
            name, "main", split=part, revision=revision_of(name)
        )
    except Exception as error:  # the hub raises many kinds
        raise ProblemFileError(
            f"cannot load {name!r}: {type(error).__name__}. It is no file or "
            "folder here, and the hub did not give it. Check the name and "
            "your connection, or set DISTILL_PROBLEMS to a local folder."
        ) from error
    problems = [
        {"id": f"{part}-{number:05d}", **row}
        for number, row in enumerate(rows)
    ]
    return problems if split == "test" else cut_validation(problems, split)


def check_disjoint(splits: dict[str, Iterable[Problem]]) -> dict[str, int]:
    """Sizes of the splits; raises CourseError when a question is in two."""
    owner: dict[str, str] = {}
    sizes = {}
    for name, problems in splits.items():
        questions = {" ".join(p["question"].lower().split()) for p in problems}
        for question in questions:
            other = owner.setdefault(question, name)
            if other != name:
                raise CourseError(
                    f"a question is in {other} and in {name}: {question!r}. "
                    "Remove it from one, or the score means nothing."
                )
        sizes[name] = len(questions)
    return sizes


def showcase() -> list[Problem]:
    """The three problems that every before/after comparison shows."""
    return read_problems(PROBLEMS / "showcase.jsonl")
