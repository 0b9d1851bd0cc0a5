"""What the arms of notebooks 05 and 06 scored: groups, pairs and tables.

Their result files lie in data/results/kd/budget_<traces>, one a seed.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from helpers import CourseError
from helpers.evaluate import mcnemar
from helpers.profiles import DATA
from helpers.results import Result, Scored, read_results

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
COMMAND = (
    "python3 -m helpers distill --arm logit_online --budget 250 --seed 7 "
    "--write"
)
NO_KD_RESULTS = f"No results yet. One row of one arm is made by `{COMMAND}`."
TABLE = (
    "| traces | target | seeds | n | accuracy | 95% CI | lowest and highest "
    "seed | unseen | longer |\n|---:|---|---:|---:|---:|---:|---:|---:|---:|"
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
    def seeds(self) -> dict[int, Result]:
        return {result.seed: result for result in self.results}

    @property
    def n(self) -> int:
        return sum(result.n for result in self.results)

    @property
    def correct(self) -> int:
        return sum(result.correct for result in self.results)


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
    folder: Path = KD_RESULTS,
    *,
    arms: Sequence[str] = LOGIT_ARMS,
    profile: str = "mini",
) -> list[Group]:
    """By budget, then in the order of `arms`; CourseError if broken."""
    groups = []
    for place in folder.glob("budget_*"):
        budget = int(place.name.removeprefix("budget_"))
        results = [r for r in read_results(place) if r.profile == profile]
        for arm in arms:
            seeds = tuple(result for result in results if result.arm == arm)
            groups += [Group(arm, budget, seeds)] if seeds else []
    return sorted(groups, key=lambda group: group.budget)


def compare(first: Group, second: Group) -> Comparison:
    """Two arms answer by answer; CourseError when they cannot be paired."""
    pairs = [
        (first.seeds[seed], second.seeds[seed])
        for seed in first.seeds
        if seed in second.seeds
    ]
    fits = [0 < len(a.right) == len(b.right) for a, b in pairs]
    if not pairs or not all(fits) or first.budget != second.budget:
        raise CourseError(
            f"{first.arm} and {second.arm} at {first.budget} traces cannot "
            "be paired: they need equal budgets and seeds and the answers to "
            f"the same questions. Make them again, for instance: `{COMMAND}`"
        )
    before, after = (
        [mark == "1" for result in results for mark in result.right]
        for results in zip(*pairs, strict=True)
    )
    gain = sum(after) - sum(before)
    return Comparison(
        first,
        second,
        seeds=len(pairs),
        points=100 * gain / len(before),
        p_value=mcnemar(before, after),
        same_sign=sum(gain * (b.correct - a.correct) > 0 for a, b in pairs),
    )


def comparisons(groups: Sequence[Group]) -> list[Comparison]:
    """The neighbours of PAIRS at one budget that have a seed in common."""
    return [
        compare(first, second)
        for first, second in itertools.permutations(groups, 2)
        if (first.arm, second.arm) in PAIRS
        and first.budget == second.budget
        and first.seeds.keys() & second.seeds.keys()
    ]


def kd_table_markdown(groups: Sequence[Group]) -> str:
    """Budgets and arms in a Markdown table, pooled over the seeds."""
    rows = []
    for group in groups:
        low, high = group.interval
        shares = [result.accuracy for result in group.results]
        others = [part_of(group, name) for name in ("unseen", "longer")]
        rows.append(
            f"| {group.budget:,} | {group.name} | {len(group.results)} "
            f"| {group.n:,} | {group.accuracy:.1%} | {100 * low:.1f}-"
            f"{100 * high:.1f} | {min(shares):.1%}, {max(shares):.1%} "
            f"| {' | '.join(others)} |"
        )
    return "\n".join([TABLE, *rows]) if rows else NO_KD_RESULTS


def part_of(group: Group, split: str) -> str:
    """A group's share of another split that is right, pooled like all."""
    parts = [r.splits[split] for r in group.results if split in r.splits]
    asked = sum(part["n"] for part in parts)
    right = sum(part["correct"] for part in parts)
    return f"{right / asked:.1%} ({right:,}/{asked:,})" if asked else ""


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
    seeds = max(test.seeds for test in tests)
    return (
        f"Supported (paired p < {LEVEL}, same sign in every seed): "
        f"{shown or 'nothing'}.\n\nNot supported: {rest or 'nothing'}.\n\nOf "
        f"{len(tests)} tests, chance alone would give about "
        f"{LEVEL * len(tests):.1f} with p < {LEVEL}. Seeds: {seeds}, and the "
        "same traces for every seed, so these differences are indications; "
        "the experiment is to be repeated by a written plan."
    )
