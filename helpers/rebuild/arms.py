"""What the arms of notebooks 04 to 06 scored: groups, tables, contrasts.

The results of 05 and 06 lie in data/results/kd/budget_<traces>, those of 04
in data/results/stories; a file a seed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from helpers.profiles import DATA
from helpers.rebuild.contrasts import Contrast, Seeds, family, interval
from helpers.results import Result, read_results

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
COMMAND = (
    "python3 -m helpers distill --arm logit_online --budget 250 --seed 7 "
    "--write"
)
NO_KD_RESULTS = f"No results yet. One row of one arm is made by `{COMMAND}`."
SPLITS = ("test", "unseen", "longer")


@dataclass(frozen=True)
class Group:
    """One arm at one budget (0 where there is none): a result a seed."""

    arm: str
    budget: int
    results: tuple[Result, ...]
    name: str

    def points(self, split: str = "test") -> Seeds:
        """{seed: (problems,)}, 100 where right; of seeds with that split."""
        found = {
            result.seed: result.right
            if split == "test"
            else result.splits.get(split, {}).get("right", "")
            for result in self.results
        }
        return {
            seed: np.array([100.0 * (mark == "1") for mark in marks])
            for seed, marks in found.items()
            if marks
        }

    def told(self, split: str = "test") -> tuple[float, float, float] | None:
        """Accuracy in percent and its interval; None where nothing is.

        Few seeds that differ much can ask for more than 0 to 100 percent.
        """
        points = self.points(split)
        if not points:
            return None
        mean, low, high = interval(points)
        return mean, max(0.0, low), min(100.0, high)


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
            name = ARM_NAMES.get(arm, arm)
            groups += [Group(arm, budget, seeds, name)] if seeds else []
    return sorted(groups, key=lambda group: group.budget)


def kd_contrasts(groups: Sequence[Group]) -> list[Contrast]:
    """The neighbours of PAIRS at every budget, on the test; one family."""
    at = {(group.arm, group.budget): group for group in groups}
    return family(
        (
            at[first, budget].name,
            at[second, budget].name,
            f"{budget:,} traces",
            at[first, budget].points(),
            at[second, budget].points(),
        )
        for budget in sorted({group.budget for group in groups})
        for first, second in PAIRS
        if (first, budget) in at and (second, budget) in at
    )


def groups_markdown(
    groups: Sequence[Group],
    splits: Sequence[str] = SPLITS,
    command: str = COMMAND,
) -> str:
    """A row a group: mean over seeds and 95% interval for every split."""
    if not groups:
        return f"No results yet. One row of one seed is made by `{command}`."
    budgets = any(group.budget for group in groups)
    rows = [
        f"| {'traces | ' * budgets}target | seeds | {' | '.join(splits)} |",
        "|" + "---:|" * budgets + "---|---:|" + "---:|" * len(splits),
    ]
    for group in groups:
        cells = [f"{group.budget:,}"] if budgets else []
        cells += [group.name, str(len(group.results))]
        for split in splits:
            told = group.told(split)
            form = "{:.1f}% ({:.1f} to {:.1f})"
            cells.append(form.format(*told) if told else "")
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows)
