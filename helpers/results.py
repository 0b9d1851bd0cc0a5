"""Tables of the measured results, generated from data/results, never typed.

The files themselves are read and written by helpers.results; its names
are offered here as well, so `from helpers.results import ...` is enough.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Sequence
from dataclasses import MISSING, asdict, dataclass, field, fields
from datetime import date as calendar
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from helpers import PROFILE_NAMES, CourseError
from helpers.evaluate import (
    Evaluation,
    Scored,
    gap_closed,
    mcnemar,
    splits_of,
    wilson_interval,
)
from helpers.profiles import DATA, Profile, overrides, write_atomic

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


class ResultFileError(CourseError):
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


START, END = "<!-- results:start -->", "<!-- results:end -->"
KD_START, KD_END = "<!-- kd:start -->", "<!-- kd:end -->"
NO_RESULTS = f"No results yet. Measure them: {RERUN}"
HEADER = ("n", "accuracy", "95% CI", "seconds", "peak MiB", "command")
NUMERIC = {"seed", "n", "accuracy", "95% CI", "seconds", "peak MiB"}
Table = list[list[str]]


def table_text(
    directory: Path | None = None, *, results: Sequence[Result] | None = None
) -> str:
    """The results as aligned plain text, for the terminal.

    One row an arm, and one an extra split ("student_after: heldout").
    Columns for profile and seed appear when there is more than one of them.
    results: these instead of the files of `directory`.

    Raises:
        ResultFileError: a result file is broken.
    """
    table = _table(read_results(directory) if results is None else results)
    if not table:
        return NO_RESULTS
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    table.insert(1, ["-" * width for width in widths])
    lines = [
        "  ".join(
            cell.rjust(width) if name in NUMERIC else cell.ljust(width)
            for name, cell, width in zip(table[0], row, widths, strict=True)
        ).rstrip()
        for row in table
    ]
    return "\n".join(lines)


def table_markdown(
    directory: Path | None = None, *, results: Sequence[Result] | None = None
) -> str:
    """The same table in Markdown, for the README and the notebooks.

    Raises:
        ResultFileError: a result file is broken.
    """
    table = _table(read_results(directory) if results is None else results)
    if not table:
        return NO_RESULTS
    header = table[0]
    rule = ["---:" if name in NUMERIC else "---" for name in header]
    body = [
        [*row[:-1], f"`{row[-1]}`" if row[-1] else ""] for row in table[1:]
    ]
    return "\n".join(f"| {' | '.join(row)} |" for row in [header, rule, *body])


def update_readme(path: Path, directory: Path | None = None) -> bool:
    """Write the table between the two result markers of a file.

    Returns whether the file changed; what is outside the markers never does.
    A file with the `kd` markers gets the table of notebooks 05 and 06 there.

    Raises:
        ResultFileError: no such file, no markers in it, it cannot be
            written, or a result file is broken.
    """
    path = Path(path)
    if not path.is_file():
        raise ResultFileError(f"There is no file {path} to put the table in.")
    old = path.read_text("utf-8")
    new = put_between(old, START, END, table_markdown(directory), path.name)
    if KD_START in new:
        folder = Path(directory or results_directory()) / "kd"
        groups = read_groups(folder, arms=tuple(ARM_NAMES))
        table = kd_table_markdown(groups)
        new = put_between(new, KD_START, KD_END, table, path.name)
    if new != old:
        replace_file(path, new)
    return new != old


def put_between(text: str, start: str, end: str, table: str, name: str) -> str:
    """`text` with a table between two markers; nothing else changes."""
    before, found, rest = text.partition(start)
    _, closed, after = rest.partition(end)
    if not found or not closed:
        raise ResultFileError(
            f"{name} has no place for the results: put the lines "
            f"{start} and {end} where the table belongs."
        )
    return f"{before}{start}\n\n{table}\n\n{end}{after}"


def draw_overview(directory: Path | None = None) -> Path | None:
    """Draw the README's picture: teacher, student before and after.

    Returns the file beside the results, None while one of them is missing.
    """
    folder = Path(directory or results_directory())
    found = {
        result.arm: result
        for result in read_results(folder)
        if result.profile == "mini"
    }
    arms = ("teacher", "student_before", "student_after")
    if not all(arm in found for arm in arms):
        return None
    from helpers.plots.accuracy import accuracy_bars

    teacher, before, after = (found[arm].accuracy for arm in arms)
    closed = gap_closed(before, after, teacher)
    path = folder / "overview.png"
    accuracy_bars(
        [found[arm] for arm in arms],
        f"Distillation closes {closed:.0%} of the gap to the teacher",
        save=path,
    )
    return path


def _repository() -> Path:
    return Path(__file__).resolve().parents[1]


def _table(results: Sequence[Result]) -> Table:
    """Header and rows as text; [] when there are no results."""
    if not results:
        return []
    keys = [
        name
        for name in ("profile", "seed")
        if len({getattr(result, name) for result in results}) > 1
    ]
    rows = [["arm", *keys, *HEADER]]
    for result in results:
        rows += _rows(result, [str(getattr(result, key)) for key in keys])
    return rows


def _rows(result: Result, keys: list[str]) -> Table:
    """The arm's own row, then one row for each of its splits."""
    mode = f" ({result.mode})" if result.mode else ""
    memory = result.peak_memory_mb
    costs = [
        f"{result.seconds:.0f}",
        "-" if memory is None else f"{memory:.0f}",
        result.command,
    ]
    score = _score(result.n, result.correct)
    rows = [[f"{result.arm}{mode}", *keys, *score, *costs]]
    for name, split in result.splits.items():
        score = _score(split["n"], split["correct"])
        rows.append([f"{result.arm}: {name}", *keys, *score, "", "", ""])
    return rows


def _score(total: int, correct: int) -> list[str]:
    low, high = wilson_interval(correct, total)
    interval = f"{100 * low:.1f}-{100 * high:.1f}"
    return [str(total), f"{correct / total:.1%}", interval]


KD_RESULTS = DATA / "results" / "kd"
ARM_NAMES = {
    "sft_gold": "gold text",
    "sft_traces": "teacher text",
    "logit_online": "logits, online",
    "logit_cached": "logits, cached",
    "logit_online_t2": "logits, T = 2",
    "feature_text": "text + states",
    "feature_relation": "text + relations",
    "feature_logit": "logits, T = 2, + relations",
}
LOGIT_ARMS = tuple(arm for arm in ARM_NAMES if "feature" not in arm)
FEATURE_ARMS = (
    "sft_traces",
    "logit_online_t2",
    *(arm for arm in ARM_NAMES if "feature" in arm),
)
PAIRS = (
    ("sft_gold", "sft_traces"),
    ("sft_traces", "logit_online"),
    ("logit_online", "logit_cached"),
    ("logit_online", "logit_online_t2"),
    ("sft_traces", "logit_online_t2"),
    ("sft_traces", "feature_text"),
    ("sft_traces", "feature_relation"),
    ("logit_online_t2", "feature_text"),
    ("logit_online_t2", "feature_logit"),
)
LEVEL = 0.05  # a smaller p-value supports a difference
ONE = "--arm logit_online --budget 250 --seed 7 --write"
COMMAND = f"python3 -m helpers distill {ONE}"
NO_KD_RESULTS = f"No results yet. One row of one arm is made by `{COMMAND}`."
TABLE = (
    "| traces | target | seeds | n | accuracy | 95% CI | lowest and highest "
    "seed | unseen kinds |\n|---:|---|---:|---:|---:|---:|---:|---:|"
)
TESTS = (
    "| traces | is this better ... | ... than this? | points | p | seeds of "
    "this sign |\n|---:|---|---|---:|---:|---:|"
)


@dataclass(frozen=True)
class Group(Scored):
    """One arm at one budget: a result a seed; scores are of all together."""

    arm: str
    budget: int
    results: tuple[Result, ...]

    @property
    def name(self) -> str:
        return ARM_NAMES[self.arm]

    @property
    def seeds(self) -> set[int]:
        return {result.seed for result in self.results}

    @property
    def n(self) -> int:
        return sum(result.n for result in self.results)

    @property
    def correct(self) -> int:
        return sum(result.correct for result in self.results)

    @property
    def span(self) -> tuple[float, float]:
        """Accuracy of the worst and of the best seed."""
        shares = [result.accuracy for result in self.results]
        return min(shares), max(shares)


@dataclass(frozen=True)
class Comparison:
    """`second` against `first`, on the seeds that both have.

    p_value: McNemar's, all seeds in a row. The same questions return with
    every seed, so it is rather small; `supported` asks for one sign as well.
    """

    first: Group
    second: Group
    seeds: int
    points: float  # percentage points gained
    p_value: float
    same_sign: int

    @property
    def supported(self) -> bool:
        return self.p_value < LEVEL and self.same_sign == self.seeds

    def __str__(self) -> str:
        return (
            f"{self.second.name} against {self.first.name} at "
            f"{self.first.budget:,} traces ({self.points:+.1f} points, p = "
            f"{self.p_value:.2g}, seeds: {self.seeds})"
        )


def read_groups(
    folder: Path | None = None,
    *,
    arms: Sequence[str] = LOGIT_ARMS,
    profile: str = "mini",
) -> list[Group]:
    """By budget, then in the order of `arms`; ResultFileError if broken."""
    groups = []
    for place in Path(folder or KD_RESULTS).glob("budget_*"):
        budget = int(place.name.removeprefix("budget_"))
        results = [r for r in read_results(place) if r.profile == profile]
        for arm in arms:
            own = [result for result in results if result.arm == arm]
            own.sort(key=lambda result: result.seed)
            groups += [Group(arm, budget, tuple(own))] if own else []
    return sorted(groups, key=lambda group: group.budget)


def compare(first: Group, second: Group) -> Comparison:
    """Two arms answer by answer; ValueError when they cannot be paired."""
    theirs = {result.seed: result for result in second.results}
    pairs = [(r, theirs[r.seed]) for r in first.results if r.seed in theirs]
    fits = [0 < len(one.right) == len(two.right) for one, two in pairs]
    if not pairs or not all(fits) or first.budget != second.budget:
        raise ValueError(
            f"{first.arm} and {second.arm} at {first.budget} traces cannot "
            "be paired: they need equal budgets and seeds and the answers to "
            f"the same questions. Make them again, for instance: `{COMMAND}`"
        )
    before = "".join(one.right for one, _ in pairs)
    after = "".join(two.right for _, two in pairs)
    gain = after.count("1") - before.count("1")
    flags = [[mark == "1" for mark in text] for text in (before, after)]
    return Comparison(
        first,
        second,
        seeds=len(pairs),
        points=100 * gain / len(before),
        p_value=mcnemar(*flags),
        same_sign=sum(gain * (b.correct - a.correct) > 0 for a, b in pairs),
    )


def comparisons(groups: Sequence[Group]) -> list[Comparison]:
    """The neighbours of PAIRS at one budget that have a seed in common."""
    return [
        compare(one, two)
        for one in groups
        for two in groups
        if one.budget == two.budget and (one.arm, two.arm) in PAIRS
        if one.seeds & two.seeds
    ]


def kd_table_markdown(groups: Sequence[Group]) -> str:
    """Budgets and arms in a Markdown table, pooled over the seeds."""
    rows = []
    for group in groups:
        (low, high), (worst, best) = group.interval, group.span
        splits = [r.splits.get("held-out templates") for r in group.results]
        asked = sum(split["n"] for split in splits if split)
        right = sum(split["correct"] for split in splits if split)
        unseen = f"{right / asked:.1%} ({right}/{asked})" if asked else ""
        rows.append(
            f"| {group.budget:,} | {group.name} | {len(group.results)} "
            f"| {group.n:,} | {group.accuracy:.1%} | {100 * low:.1f}-"
            f"{100 * high:.1f} | {worst:.1%}, {best:.1%} | {unseen} |"
        )
    return "\n".join([TABLE, *rows]) if rows else NO_KD_RESULTS


def pairs_markdown(groups: Sequence[Group]) -> str:
    """The paired tests in a Markdown table."""
    rows = [
        f"| {test.first.budget:,} | {test.second.name} | {test.first.name} | "
        f"{test.points:+.1f} | {test.p_value:.2g} | {test.same_sign} of "
        f"{test.seeds} |"
        for test in comparisons(groups)
    ]
    return "\n".join([TESTS, *rows]) if rows else NO_KD_RESULTS


def findings(groups: Sequence[Group]) -> str:
    """Which differences the paired tests support and which not, in words."""
    tests = comparisons(groups)
    if not tests:
        return NO_KD_RESULTS
    shown = "; ".join(str(t) for t in tests if t.supported)
    rest = "; ".join(str(t) for t in tests if not t.supported)
    return (
        f"Supported (paired p < {LEVEL}, same sign in every seed): "
        f"{shown or 'nothing'}.\n\nNot supported: {rest or 'nothing'}.\n\nOf "
        f"{len(tests)} tests, chance alone would give about "
        f"{LEVEL * len(tests):.1f} with p < {LEVEL}."
    )


def to_result(
    arm: str,
    evaluations: list[Evaluation],
    *,
    profile: Profile,
    seed: int,
    command: str,
    mode: str | None = None,
    notes: str = "",
) -> Result:
    """A results file's content; the first evaluation is the test split.

    Its notes name every setting that is not the profile's own.
    """
    test = evaluations[0]
    peaks = [e.peak_mib for e in evaluations if e.peak_mib is not None]
    return Result(
        arm=arm,
        profile=profile.name,
        seed=seed,
        n=len(test.problems),
        correct=sum(test.correct),
        seconds=round(test.seconds, 1),
        peak_memory_mb=max(peaks, default=None),
        command=command,
        splits=splits_of(*evaluations),
        mode=mode,
        notes=f"{notes} {overrides(profile)}".strip(),
        right="".join(str(int(flag)) for flag in test.correct),
    )
