"""One measured arm, one JSON file: written whole, checked when read.

helpers.results makes the tables from these files. A file holds what is
needed to repeat the measurement: the command, the seed, the versions; never
a path of this machine or the name of its user.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
from dataclasses import MISSING, asdict, dataclass, field, fields
from datetime import date as calendar
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from helpers import PROFILE_NAMES
from helpers.files import write_atomic
from helpers.statistics import Scored

COURSE_ORDER = (
    "teacher",
    "student_before",
    "student_after",
    "sft_gold",
    "sft_traces",
    "logit_online",
    "logit_cached",
    "feature",
    "on_policy",
)
MODES = (None, "think", "at once")
RERUN = "python3 -m helpers evaluate"
_PACKAGES = ("torch", "transformers", "trl", "peft", "bitsandbytes", "unsloth")
_COMMAND = "python3 -m helpers "
_PRIVATE_PATH = re.compile(r"(?:^|[\s=\"'(])(?:/\w|~|[A-Za-z]:[\\/]|\\\\)")


class ResultFileError(ValueError):
    """A result file is broken; the message names the file and the cure."""


def package_versions() -> dict[str, str]:
    """Versions of the packages that a measurement depends on."""
    found = {}
    for name in _PACKAGES:
        with contextlib.suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


@dataclass(frozen=True)
class Result(Scored):
    """One measured arm.

    n, correct: problems asked and answered correctly.
    seconds: wall time of the measurement. peak_memory_mb: MiB (2**20
        bytes), the most in use while the arm was evaluated, or None where it
        was not measured.
    command: how to repeat it, "python3 -m helpers ...".
    splits: further counts, {"heldout": {"n": 300, "correct": 250}}.
    mode: "think", "at once" or None.
    right: one character a problem, "1" right and "0" wrong, so that two arms
        can be compared problem by problem; empty where it was not kept.
    """

    arm: str
    profile: str
    seed: int
    n: int
    correct: int
    seconds: float
    peak_memory_mb: float | None
    command: str
    versions: dict[str, str] = field(default_factory=package_versions)
    date: str = field(default_factory=lambda: calendar.today().isoformat())
    splits: dict[str, dict[str, int]] = field(default_factory=dict)
    mode: str | None = None
    notes: str = ""
    right: str = ""

    @property
    def file_name(self) -> str:
        """<profile>-<arm>-seed<seed>.json"""
        return f"{self.profile}-{self.arm}-seed{self.seed}.json"


def results_directory() -> Path:
    """DISTILL_RESULTS_DIR, or data/results beside the package."""
    shipped = Path(__file__).resolve().parents[1] / "data" / "results"
    return Path(os.environ.get("DISTILL_RESULTS_DIR") or shipped)


def write_result(result: Result, directory: Path | None = None) -> Path:
    """Check a result and write it to its file, whole or not at all.

    Raises:
        ResultFileError: a field is wrong, or the file cannot be written; an
            older file of the same name is left as it was.
    """
    path = Path(directory or results_directory()) / result.file_name
    problem = _problem(result)
    if problem:
        raise ResultFileError(f"{path.name} is not written: {problem}")
    low, high = result.interval
    content = asdict(result) | {
        "accuracy": round(result.accuracy, 6),
        "interval": [round(low, 6), round(high, 6)],
    }
    replace_file(path, json.dumps(content, indent=2) + "\n")
    return path


def read_results(directory: Path | None = None) -> list[Result]:
    """Read every result file, in course order; [] when there is none.

    Raises:
        ResultFileError: a file is broken; names the file and the cure.
    """
    folder = Path(directory or results_directory())
    results = [_read(path) for path in sorted(folder.glob("*.json"))]
    return sorted(results, key=_course_position)


# --- reading and checking ---------------------------------------------------


def _read(path: Path) -> Result:
    """One file; every way it can be broken becomes a ResultFileError."""
    cure = f"Delete it and measure again: {RERUN}"
    try:
        content = json.loads(path.read_text("utf-8"))
    except OSError as error:
        reason = error.strerror or error
        raise ResultFileError(
            f"{path} cannot be read: {reason}. {cure}"
        ) from error
    except ValueError as error:
        raise ResultFileError(f"{path} is not JSON: {error}. {cure}") from None
    problem = _shape_problem(content)
    if problem is None:
        stored = {name: content.pop(name) for name in ("accuracy", "interval")}
        result = Result(**content)
        problem = _problem(result) or _stored_problem(result, stored)
        if problem is None and path.name != result.file_name:
            problem = f"its content belongs into {result.file_name}."
    if problem:
        raise ResultFileError(f"{path} is broken: {problem} {cure}")
    return result


def _shape_problem(content: object) -> str | None:
    if not isinstance(content, dict):
        return f"it holds a {type(content).__name__}, not one object."
    known = {item.name for item in fields(Result)} | {"accuracy", "interval"}
    optional = {
        item.name
        for item in fields(Result)
        if (item.default, item.default_factory) != (MISSING, MISSING)
    } - {"versions", "date"}
    missing = sorted(known - optional - set(content))
    unknown = sorted(set(content) - known)
    if missing:
        return f"it lacks {', '.join(missing)}."
    return f"it has unknown {', '.join(unknown)}." if unknown else None


def _problem(result: Result) -> str | None:
    """The first thing that is wrong with a result, or None."""
    counts = [(result.n, result.correct)]
    memory = result.peak_memory_mb
    try:
        counts += [
            (split["n"], split["correct"]) for split in result.splits.values()
        ]
        calendar.fromisoformat(result.date)
    except (KeyError, TypeError, ValueError, AttributeError):
        return "splits are {name: {n, correct}} and the date is YYYY-MM-DD."
    if not all(_is_score(n, correct) for n, correct in counts):
        return "correct must be a whole number between 0 and n, n above 0."
    for name in (result.arm, result.profile):
        if not re.fullmatch(r"[a-z0-9_]+", str(name)):
            return f"the name {name!r} is not lower_case_with_underscores."
    if not isinstance(result.seed, int) or isinstance(result.seed, bool):
        return f"the seed {result.seed!r} is not a whole number."
    if result.mode not in MODES:
        return f"the mode {result.mode!r} is not 'think', 'at once' or null."
    if not _is_amount(result.seconds):
        return f"seconds is {result.seconds!r}, not a number from 0 up."
    if memory is not None and not _is_amount(memory):
        return f"peak_memory_mb is {memory!r}, not a number from 0 up."
    if not isinstance(result.versions, dict):
        return f"versions is {result.versions!r}, not a table of names."
    if result.right and not _fits(result.right, result.n, result.correct):
        return "right is not one 0 or 1 a problem, with correct ones in all."
    return _text_problem(result)


def _fits(right: object, n: int, correct: int) -> bool:
    if not isinstance(right, str) or set(right) - {"0", "1"}:
        return False
    return len(right) == n and right.count("1") == correct


def _text_problem(result: Result) -> str | None:
    if not str(result.command).startswith(_COMMAND):
        return f"the command {result.command!r} is not {_COMMAND!r} + more."
    for text in (result.command, result.notes):
        if not isinstance(text, str) or _PRIVATE_PATH.search(text):
            return f"{text!r} is no text, or holds a path of this machine."
    return None


def _stored_problem(result: Result, stored: dict[str, object]) -> str | None:
    interval = stored["interval"]
    pair = interval if isinstance(interval, list) else []
    numbers = [stored["accuracy"], *pair]
    expected = [result.accuracy, *result.interval]
    agrees = len(numbers) == 3 and all(
        _is_amount(found) and abs(found - wanted) < 1e-5
        for found, wanted in zip(numbers, expected, strict=True)
    )
    return None if agrees else "accuracy or interval contradict correct / n."


def _is_score(n: object, correct: object) -> bool:
    whole = type(n) is int and type(correct) is int
    return whole and n > 0 and 0 <= correct <= n


def _is_amount(value: object) -> bool:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return number and 0 <= value < float("inf")


def _course_position(result: Result) -> tuple[int, str, int, str, int]:
    places = [
        place
        for place, name in enumerate(COURSE_ORDER)
        if result.arm.startswith(name)
    ]
    place = places[0] if places else len(COURSE_ORDER)
    profile = (*PROFILE_NAMES, result.profile).index(result.profile)
    return profile, result.profile, place, result.arm, result.seed


def replace_file(path: Path, text: str) -> None:
    """Write a file whole or not at all; the old one survives a failure."""
    try:
        write_atomic(path, text)
    except OSError as error:
        raise ResultFileError(
            f"{path} is not updated: {error.strerror or error}. Or set "
            f"DISTILL_RESULTS_DIR to a folder you may write to."
        ) from error
