"""Problems as every notebook sees them: mini, GSM8K, or your own file.

A problem is a dictionary with `id`, `question` and `answer`, the last one in
GSM8K's format: a worked solution, then `#### 72`. Mini problems also carry
`moves` and `impossible`.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from helpers.files.problems import Problem, ProblemFileError, read_problems
from helpers.profiles import DATA, revision_of

PROBLEMS = DATA / "problems"
SPLITS = ("train", "validation", "test")
MINI_SPLITS = ("unseen", "longer", "buses")  # beside these, of the mini lab
SMALLEST_FILE = 10
GSM8K_VALIDATION = 473  # GSM8K has no validation split: the end of its train


def load_problems(
    source: str | Path, split: str, *, limit: int | None = None
) -> list[Problem]:
    """The problems of a split, in a fixed order.

    `source` is "mini" (shipped with the course), a folder with
    `<split>.jsonl`, a hub id such as "openai/gsm8k", or one `.jsonl` file:
    its last fifth is test, and nothing of it is ever trained on.
    Raises ProblemFileError, naming the file and line, for anything else.
    """
    path = PROBLEMS if str(source) == "mini" else Path(source)
    if split not in SPLITS and not (path / f"{split}.jsonl").exists():
        raise ProblemFileError(
            f"{path.name} has no split {split!r}: choose one of "
            f"{', '.join(SPLITS)}; mini has {', '.join(MINI_SPLITS)} as well"
        )
    if path.suffix == ".jsonl":
        problems = cut_file(path, split)
    elif path.is_dir():
        problems = read_folder(path, split)
    else:
        problems = read_hub(str(source), split)
    return problems[:limit]


def load_tests(
    source: str | Path, *, limit: int | None = None
) -> dict[str, list[Problem]]:
    """What a student is scored on: test and, of mini, its other splits."""
    names = ("test", *MINI_SPLITS) if str(source) == "mini" else ("test",)
    return {name: load_problems(source, name, limit=limit) for name in names}


def read_folder(folder: Path, split: str) -> list[Problem]:
    """`<split>.jsonl`; without a validation file, the end of train."""
    cut = not (folder / "validation.jsonl").exists() and split in SPLITS[:2]
    file = folder / f"{'train' if cut else split}.jsonl"
    if not file.exists():
        names = sorted(f.name for f in folder.glob("*.jsonl"))
        raise ProblemFileError(
            f"{folder.name}/{file.name} does not exist (there: "
            f"{names or 'no .jsonl file'}). Name a folder that holds "
            "train.jsonl and test.jsonl, or one .jsonl file."
        )
    problems = read_problems(file)
    return cut_validation(problems, split) if cut else problems


def cut_file(file: Path, split: str) -> list[Problem]:
    """One file as three splits: its last fifth is test."""
    rows = read_problems(file)
    if len(rows) < SMALLEST_FILE:
        raise ProblemFileError(
            f"{file.name} holds {len(rows)} problems; to be cut into train, "
            f"validation and test it needs {SMALLEST_FILE}. Add some, or name "
            "a folder with train.jsonl and test.jsonl."
        )
    doubles = Counter(" ".join(row["question"].split()) for row in rows)
    if (most := doubles.most_common(1)[0])[1] > 1:
        raise ProblemFileError(
            f"{file.name} asks {most[0][:60]!r} {most[1]} times, and would be "
            "cut into train and test with one in each. Leave one of them."
        )
    cut = len(rows) - len(rows) // 5
    return rows[cut:] if split == "test" else cut_validation(rows[:cut], split)


def cut_validation(rows: list[Problem], split: str) -> list[Problem]:
    """Split GSM8K's train file: its end is validation, the rest train."""
    cut = len(rows) - min(GSM8K_VALIDATION, len(rows) // 5)
    return rows[cut:] if split == "validation" else rows[:cut]


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


def showcase() -> list[Problem]:
    """The three problems that every before/after comparison shows."""
    return read_problems(PROBLEMS / "showcase.jsonl")
