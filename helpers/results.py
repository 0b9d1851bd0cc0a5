"""The result files in data/results, and the tables that are made from them.

One JSON file for each arm and seed; those of notebooks 05 and 08 lie in
kd/budget_<traces>, 06's in features. A table is generated from these files,
never typed.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import date as calendar
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from helpers import PROFILE_NAMES, CourseError
from helpers.evaluate import Evaluation, wilson_interval
from helpers.files.disk import write_atomic
from helpers.profiles import DATA, Profile, overrides

COURSE_ORDER = (
    *("teacher", "student_before", "student_after"),
    *("sft_gold", "sft_traces", "logit_online", "logit_cached"),
    *("feature", "on_policy"),
)
RERUN = "python3 -m helpers evaluate"
PACKAGES = ("torch", "transformers", "trl", "peft", "bitsandbytes", "unsloth")
ARM_NAME = re.compile(r"[a-z0-9_]+")
PRIVATE_PATH = re.compile(r"(?:^|[\s=\"'(])(?:/\w|~|[A-Za-z]:[\\/]|\\\\)")
HEADER = ("n", "accuracy", "95% CI", "seconds", "peak MiB", "command")
NUMERIC = {"seed", "n", "accuracy", "95% CI", "seconds", "peak MiB"}
NO_RESULTS = f"No results yet. Measure them: {RERUN}"


def package_versions() -> dict[str, str]:
    """Versions of the packages that a measurement depends on."""
    versions = {}
    for name in PACKAGES:
        with contextlib.suppress(PackageNotFoundError):
            versions[name] = version(name)
    return versions


@dataclass(frozen=True)
class Result:
    """One measured arm; raises CourseError where its parts do not fit.

    n, correct: problems asked and answered correctly.
    seconds: the time to answer them. peak_memory_mb: MiB (2**20 bytes), the
        most in use meanwhile, or None where it was not measured.
    command: how to repeat it, "python3 -m helpers ...".
    splits: further counts, {"impossible": {"n": 2, "correct": 1, ...}, ...}.
    right: one character a problem, "1" right and "0" wrong, so that two arms
        can be compared problem by problem; empty where it was not kept.
    judged: further measures.
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
    splits: dict[str, dict[str, Any]] = field(default_factory=dict)
    mode: str | None = None
    notes: str = ""
    right: str = ""
    judged: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        calendar.fromisoformat(self.date)
        names, parts = (self.arm, self.profile), self.splits.values()
        costs = (self.seconds, self.peak_memory_mb or 0)
        text = f"{self.command} {self.notes}"
        checks = {
            "name": all(map(ARM_NAME.fullmatch, names)),
            "seed": type(self.seed) is int,
            "count or flag": all(map(counts_fit, (vars(self), *parts))),
            "cost": all(0 <= cost < float("inf") for cost in costs),
            "command": self.command.startswith("python3 -m helpers "),
            "path of this machine": not PRIVATE_PATH.search(text),
        }
        faults = [name for name, holds in checks.items() if not holds]
        if faults:
            raise CourseError(
                f"{self.arm!r} is no result. Wrong: {', '.join(faults)}."
            )

    @property
    def accuracy(self) -> float:
        """Share of correct answers, 0 to 1."""
        return self.correct / self.n

    @property
    def interval(self) -> tuple[float, float]:
        """95% Wilson interval of the accuracy, 0 to 1."""
        return wilson_interval(self.correct, self.n)

    @property
    def file_name(self) -> str:
        """<profile>-<arm>-seed<seed>.json"""
        return f"{self.profile}-{self.arm}-seed{self.seed}.json"


def counts_fit(part: dict[str, Any]) -> bool:
    """Whether correct is between 0 and n, and the flags say the same."""
    n, correct, right = part["n"], part["correct"], part.get("right", "")
    marks = (right.count("0"), right.count("1")) == (n - correct, correct)
    marks = marks and len(right) == n
    return 0 <= correct <= n > 0 and (marks or not right)


def results_directory() -> Path:
    """DISTILL_RESULTS_DIR, or data/results beside the package."""
    return Path(os.environ.get("DISTILL_RESULTS_DIR") or DATA / "results")


def write_result(result: Result, directory: Path | None = None) -> Path:
    """Write a result to its file, whole or not at all; OSError has a cure."""
    path = Path(directory or results_directory()) / result.file_name
    content = asdict(result) | {
        "accuracy": round(result.accuracy, 6),
        "interval": [round(end, 6) for end in result.interval],
    }
    return write_atomic(path, json.dumps(content, indent=2) + "\n")


def read_results(directory: Path | None = None) -> list[Result]:
    """Every result file, in course order; [] when there is none.

    Raises CourseError for a broken file; it names the file and the cure.
    """
    folder = Path(directory or results_directory())
    return sorted(map(read_result, folder.glob("*.json")), key=course_position)


def read_result(path: Path) -> Result:
    """One file; every way it can be broken becomes a CourseError."""
    try:
        content = json.loads(path.read_text("utf-8"))
        for derived in ("accuracy", "interval"):
            content.pop(derived, None)
        result = Result(**content)
        if path.name != result.file_name:
            raise CourseError(f"its content belongs into {result.file_name}.")
    except (OSError, ValueError, TypeError, LookupError, AttributeError,
            RecursionError, ArithmeticError) as error:  # fmt: skip
        raise CourseError(
            f"{path} is broken: {error} Delete it and measure again: {RERUN}"
        ) from error
    return result


def course_position(result: Result) -> tuple[int, str, int, str, int]:
    """Sorts results by profile, then arms as the course meets them."""
    known = [result.arm.startswith(arm) for arm in COURSE_ORDER]
    profile = (*PROFILE_NAMES, result.profile).index(result.profile)
    place = (*known, True).index(True)
    return profile, result.profile, place, result.arm, result.seed


def to_result(
    arm: str,
    evaluations: Mapping[str, Evaluation],
    *,
    profile: Profile,
    seed: int,
    command: str,
    mode: str | None = None,
    notes: str = "",
) -> Result:
    """A results file's content; evaluations: by split, the first is the test.

    Its notes name every setting that is not the profile's own.
    """
    test, *_ = evaluations.values()
    peaks = [e.peak_mib for e in evaluations.values() if e.peak_mib]
    splits = {"impossible": counts(test.part("impossible", True))}
    for name, other in list(evaluations.items())[1:]:
        if name == "buses":
            for truth, kind in ((False, "solvable"), (True, "impossible")):
                part = counts(other.part("impossible", truth))
                splits[f"{kind} buses"] = part
        else:
            splits[name] = counts(other.correct)
    return Result(
        arm=arm,
        profile=profile.name,
        seed=seed,
        **counts(test.correct),
        seconds=round(test.seconds, 1),
        peak_memory_mb=max(peaks, default=None),
        command=command,
        splits={name: part for name, part in splits.items() if part["n"]},
        mode=mode,
        notes=f"{notes} {overrides(profile)}".strip(),
    )


def counts(flags: Sequence[bool]) -> dict[str, Any]:
    """n, correct and one character a problem."""
    right = "".join("1" if flag else "0" for flag in flags)
    return {"n": len(right), "correct": right.count("1"), "right": right}


# --- tables -----------------------------------------------------------------


def table_text(results: Path | Sequence[Result] | None = None) -> str:
    """The results as aligned plain text, for the terminal.

    results: some, or the folder of their files, by default the course's.
    One row an arm, and one an extra split ("student_after: impossible").
    Columns for profile and seed appear when there is more than one of them.
    """
    table = rows_of(results)
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    lines = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in table]
    return "\n".join(lines) or NO_RESULTS


def table_markdown(results: Path | Sequence[Result] | None = None) -> str:
    """The same table in Markdown, for the README and the notebooks."""
    if not (table := rows_of(results)):
        return NO_RESULTS
    header, *body = [list(map(safe, row)) for row in table]
    rule = ["---:" if name in NUMERIC else "---" for name in header]
    for row in body:
        row[-1] = row[-1] and f"`{row[-1]}`"
    return "\n".join(f"| {' | '.join(row)} |" for row in [header, rule, *body])


def safe(text: str) -> str:
    """Text that stays in its cell, as text: one line, no markup."""
    line = " ".join(text.split()).replace("`", "'")
    return line.replace("|", r"\|").replace("<", "&lt;")


def rows_of(results: Path | Sequence[Result] | None) -> list[list[str]]:
    """Header and rows as text; [] when there are no results."""
    if results is None or isinstance(results, Path):
        results = read_results(results)
    keys = [
        name
        for name in ("profile", "seed")
        if len({getattr(result, name) for result in results}) > 1
    ]
    rows = [["arm", *keys, *HEADER]] if results else []
    for result in results:
        arm, memory = result.arm, result.peak_memory_mb
        if result.mode and not arm.endswith(result.mode):
            arm += f" ({result.mode})"
        values = [str(getattr(result, key)) for key in keys]
        peak = "-" if memory is None else f"{memory:.0f}"
        costs = [f"{result.seconds:.0f}", peak, result.command]
        rows.append([arm, *values, *score(result.n, result.correct), *costs])
        for name, part in result.splits.items():
            cells = [*score(part["n"], part["correct"]), "", "", ""]
            rows.append([f"{result.arm}: {name}", *values, *cells])
    return rows


def score(n: int, correct: int) -> list[str]:
    """n, accuracy and interval as cells."""
    low, high = wilson_interval(correct, n)
    return [f"{n}", f"{correct / n:.1%}", f"{100 * low:.1f}-{100 * high:.1f}"]
