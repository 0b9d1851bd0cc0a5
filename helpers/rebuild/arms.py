"""What the arms of notebooks 04 to 08 scored: groups, tables, contrasts.

The results of `helpers compare` lie in data/results/kd/budget_<traces>, those
of 04 in data/results/stories; a file a seed.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from helpers.profiles import DATA
from helpers.rebuild.contrasts import Contrast, Seeds, family, interval
from helpers.results import Result, read_results


@dataclass(frozen=True)
class Signal:
    """One arm.

    rows: whose text is read: the teacher's sound "traces"; its text
        "sampled" at T = 1 with nothing cut off and nothing filtered; "gold"
        solutions; "others", the traces of other questions.
    logits: the teacher's distribution is matched, not the text.
    temperature, kind: of `kd_loss`; with text, the student's alone.
    permuted: all but the teacher's first choice change places, by lot.
    top_k, tail: what a cache keeps. draws: it keeps so many samples.
    states, dose: a `hidden_state_loss` as well, whose gradient is made
        `dose` times as long as the other one at every step.
    own: share of the steps that read the student's own text and match the
        teacher there, by reverse KL: every second one, or the last where
        `late`. The others are as the rest of the signal says.
    cost: seconds of a row in those of a row of text, of an arm that may not
        take longer: it reads so many times less.
    warm: share of the steps, the first ones, that are those of `text`.
    like: tuned as that arm was.
    """

    name: str
    rows: str = "traces"
    logits: bool = False
    temperature: float = 1.0
    kind: str = "forward"
    permuted: bool = False
    top_k: int = 0
    tail: bool = True
    draws: int = 0
    states: str = ""
    dose: float = 0.0
    own: float = 0.0
    late: bool = False
    cost: float = 1.0
    warm: float = 0.0
    like: str = ""


def kd(name: str, **options: Any) -> Signal:
    """A signal of logits."""
    return Signal(name, logits=True, **options)


SIGNALS = {
    "gold": Signal("gold text", rows="gold"),
    "text": Signal("teacher text"),
    "text_t1": Signal("sampled text", rows="sampled"),
    "smoothed": Signal("smoothed text"),
    "hard_t2": Signal("text at the student's T = 2", temperature=2),
    "logits": kd("logits"),
    "logits_t2": kd("logits, T = 2", temperature=2),
    "permuted_t2": kd("permuted logits, T = 2", temperature=2, permuted=True),
    "logits_t4": kd("logits, T = 4", temperature=4),
    "reverse": kd("logits, reverse KL", kind="reverse"),
    "jsd": kd("logits, JSD", kind="jsd"),
    "skew": kd("logits, skew KL", kind="skew"),
    "reverse_warm": kd("text, then reverse KL", kind="reverse", warm=0.5),
    "jsd_warm": kd("text, then JSD", kind="jsd", warm=0.5),
    "skew_warm": kd("text, then skew KL", kind="skew", warm=0.5),
    "top16": kd("cache of 16", top_k=16, like="logits"),
    "top16_cut": kd("cache of 16, no tail", top_k=16, tail=False,
                    like="logits"),
    "top16_t2": kd("cache of 16, T = 2", temperature=2, top_k=16,
                   like="logits_t2"),
    "top64_t2": kd("cache of 64, T = 2", temperature=2, top_k=64,
                   like="logits_t2"),
    "drawn64": kd("cache of 64 draws", draws=64, like="logits"),
    "states": Signal("text + states, 0.3", states="cosine", dose=0.3),
    "states_full": Signal("text + states, 1", states="cosine", dose=1.0),
    "relations": Signal("text + relations, 0.3", states="relation", dose=0.3),
    "relations_full": Signal("text + relations, 1", states="relation",
                             dose=1.0),
    "logits_relations": kd("logits + relations, 0.3", states="relation",
                           dose=0.3),
    "placebo": Signal("traces of other questions", rows="others",
                      like="text"),
    "on_policy": Signal("own text", own=1.0),
    "on_policy_text": Signal("text, then own text", own=0.5, late=True),
    "mixed": kd("logits and own text", own=0.5),
    "on_policy_brief": Signal("own text, equal seconds", own=1.0, cost=3.5),
    "on_policy_text_brief": Signal("text, then own text, equal seconds",
                                   own=0.5, late=True, cost=2.25),
    "mixed_brief": kd("logits and own text, equal seconds", own=0.5,
                      cost=2.25),
}  # fmt: skip

KD_RESULTS = DATA / "results" / "kd"
COMMAND = "python3 -m helpers compare --arms logits_t2 --budgets 250 --seeds 7"
SPLITS = ("test", "unseen", "longer")
UNTRAINED = {"teacher": "teacher", "untouched": "student, untouched"}
ARM_NAMES = UNTRAINED | {arm: signal.name for arm, signal in SIGNALS.items()}
LOGIT_ARMS = ("gold", "text", "logits", "logits_t2", "top16")
# The primary contrasts of data/results/kd/PLAN.md, first less second.
RIVALS = ("permuted_t2", "smoothed", "hard_t2")  # of dark knowledge
PRIMARY = (
    *(("logits_t2", rival) for rival in RIVALS),
    ("logits", "text_t1"),
    ("logits_t2", "logits"),
    ("logits_t2", "text"),
    ("logits_t2", "gold"),
)
TESTED = (64, 250)  # budgets of the primary contrasts
# What the plan describes and does not test: each arm less its nearest kin.
DESCRIBED = (
    *((arm, "text") for arm in ("states", "states_full", "relations")),
    ("relations_full", "text"),
    ("logits_relations", "logits"),
    *((arm, "logits") for arm in ("top16", "top16_cut", "drawn64")),
    *((arm, "logits_t2") for arm in ("top16_t2", "top64_t2", "logits_t4")),
)
# Asked when the results had been seen: what do the rivals gain over text?
AFTERWARDS = (
    *((arm, "text") for arm in ("hard_t2", "permuted_t2", "logits")),
    ("text", "text_t1"),
)
# Other divergences, from the untouched student and after text.
DIVERGENCES = (
    *((arm, "logits") for arm in ("reverse", "jsd", "skew")),
    *((arm + "_warm", arm) for arm in ("reverse", "jsd", "skew")),
    *((arm + "_warm", "text") for arm in ("reverse", "jsd", "skew")),
)
OWN_TEXT = (  # described as well: the student's own text or the teacher's
    *((arm, other) for arm, signal in SIGNALS.items() if signal.own
      for other in ("text", "logits")),
    ("on_policy", "reverse"),
    ("on_policy_text", "reverse_warm"),
)  # fmt: skip
REPORTED = (  # twelve rows for the README
    *(*UNTRAINED, "gold", "text", "text_t1", "smoothed", "hard_t2"),
    *("permuted_t2", "logits", "logits_t2"),
    *("on_policy_text", "on_policy_brief"),
)


@dataclass(frozen=True)
class Group:
    """One arm at one budget (0 where there is none): a result a seed."""

    arm: str
    budget: int
    results: tuple[Result, ...]
    name: str

    def points(self, split: str = "test") -> Seeds:
        """{seed: (problems,)}, 100 where right; of seeds with that split."""
        marks = {
            result.seed: result.right
            if split == "test"
            else result.splits.get(split, {}).get("right", "")
            for result in self.results
        }
        return {
            seed: np.array([100.0 * (mark == "1") for mark in row])
            for seed, row in marks.items()
            if row
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

    def middle(self, measure: str) -> float:
        """Median over the seeds of one of the `judged` measures."""
        return median(result.judged[measure] for result in self.results)


def read_groups(
    folder: Path = KD_RESULTS, *, profile: str = "mini"
) -> list[Group]:
    """By budget, then in the order of ARM_NAMES; CourseError if broken."""
    groups = []
    for place in folder.glob("budget_*"):
        budget = int(place.name.removeprefix("budget_"))
        results = [r for r in read_results(place) if r.profile == profile]
        for arm, name in ARM_NAMES.items():
            seeds = tuple(result for result in results if result.arm == arm)
            groups += [Group(arm, budget, seeds, name)] if seeds else []
    return sorted(groups, key=lambda group: group.budget)


def kd_contrasts(
    groups: Sequence[Group],
    pairs: Sequence[tuple[str, str]] = PRIMARY,
    *,
    budgets: Sequence[int] = TESTED,
) -> list[Contrast]:
    """Gains of the first of each pair on the test; one family."""
    at = {(group.arm, group.budget): group for group in groups}
    return family(
        (
            at[second, budget].name,
            at[first, budget].name,
            f"{budget:,} traces",
            at[second, budget].points(),
            at[first, budget].points(),
        )
        for budget in budgets
        for first, second in pairs
        if (first, budget) in at and (second, budget) in at
    )


def panels(contrasts: Sequence[Contrast]) -> dict[str, list]:
    """For `plots.comparison.forest`: a panel a budget."""
    places = dict.fromkeys(contrast.where for contrast in contrasts)
    return {
        place: [c.row for c in contrasts if c.where == place]
        for place in places
    }


def cell(group: Group | None, split: str) -> str:
    """Mean over seeds and 95% interval, for a table."""
    told = group.told(split) if group else None
    return "{:.1f}% ({:.1f} to {:.1f})".format(*told) if told else ""


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
        cells += [cell(group, split) for split in splits]
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows)


def budgets_markdown(
    groups: Sequence[Group], arms: Sequence[str] = REPORTED
) -> str:
    """A row an arm: its test at every budget; no training has one number."""
    at = {(group.arm, group.budget): group for group in groups}
    budgets = sorted({budget for _, budget in at} - {0})
    names = [f"{budget:,} traces" for budget in budgets]
    rows = [
        f"| target | {' | '.join(names)} | seeds |",
        "|---|" + "---:|" * (len(budgets) + 1),
    ]
    for arm in arms:
        row = [at.get((arm, b)) or at.get((arm, 0)) for b in budgets]
        if any(row):
            cells = [cell(group, "test") for group in row]
            counts = ", ".join(str(len(g.results)) if g else "0" for g in row)
            rows.append(
                f"| {ARM_NAMES[arm]} | {' | '.join(cells)} | {counts} |"
            )
    return "\n".join(rows)
