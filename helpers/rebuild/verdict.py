"""What to use when: five sentences, written by the results of `compare`."""

from collections.abc import Sequence

from helpers.rebuild.arms import (
    ARM_NAMES,
    RIVALS,
    TESTED,
    Group,
    kd_contrasts,
)
from helpers.rebuild.contrasts import Contrast, family


def points(contrast: Contrast) -> str:
    """The gain and its interval."""
    gain, low, high = (
        f"{value:+.1f}"
        for value in (contrast.gain, contrast.low, contrast.high)
    )
    return f"{gain} points ({low} to {high})"


def ahead(contrast: Contrast) -> int:
    """1 where the gain is told to be one, -1 where a loss is, else 0."""
    return (contrast.gain > 0) - (contrast.gain < 0) if contrast.sure else 0


def standing(gains: Sequence[Contrast]) -> str:
    """What is told of the gains, over the budgets."""
    signs = frozenset(ahead(gain) for gain in gains)
    return {
        frozenset({1}): "ahead at both budgets",
        frozenset({-1}): "behind at both budgets",
        frozenset({0}): "not told apart",
        frozenset({0, 1}): "ahead at one of the budgets",
        frozenset({0, -1}): "behind at one of the budgets",
    }.get(signs, "it depends on the budget")


class Table:
    """The groups, and their primary contrasts by arms and budget."""

    def __init__(self, groups: Sequence[Group]) -> None:
        self.groups = groups
        self.at = {(group.arm, group.budget): group for group in groups}
        self.primary = kd_contrasts(groups)

    def gain(self, first: str, second: str, budget: int) -> Contrast:
        """A primary contrast."""
        wanted = ARM_NAMES[first], ARM_NAMES[second], f"{budget:,} traces"
        return next(
            c for c in self.primary if (c.second, c.first, c.where) == wanted
        )

    def unplanned(self, first: str, second: str) -> str:
        """Another contrast at every budget; its sizes alone."""
        gains = kd_contrasts(self.groups, [(first, second)])
        sizes = "; ".join(f"{points(c)} with {c.where}" for c in gains)
        what, other = ARM_NAMES[first], ARM_NAMES[second]
        return f"Neither planned nor corrected: {what} less {other}, {sizes}."

    def more(self) -> Contrast:
        """The second budget less the first, text alone; p is its own."""
        pair = [self.at["text", budget].points() for budget in TESTED]
        return family([("", "", "", *pair)])[0]

    def sentence(self, first: str, second: str) -> str:
        """A primary contrast at every budget: what is told, and the sizes."""
        gains = [self.gain(first, second, budget) for budget in TESTED]
        sizes = "; ".join(
            f"{points(gain)} with {budget} traces"
            + ("" if gain.sure else ", not told from 0")
            for gain, budget in zip(gains, TESTED, strict=True)
        )
        what, other = ARM_NAMES[first], ARM_NAMES[second]
        return f"**{what}, against {other}: {standing(gains)}.** {sizes}."


def more_traces(table: Table) -> str:
    few, many = TESTED
    more = table.more()
    told = "" if more.sure else ", not told from 0"
    largest = max(
        (c for c in table.primary if c.where == f"{few:,} traces"),
        key=lambda contrast: abs(contrast.gain),
    )
    return (
        f"**More traces:** {many} instead of {few} change the score of the "
        f"teacher's text by {points(more)}{told} (neither planned nor "
        f"corrected). For scale, the largest planned difference with {few}, "
        f"picked afterwards: {largest.second} less {largest.first}, "
        f"{points(largest)}."
    )


def mechanism(table: Table) -> str:
    parts = []
    for budget in TESTED:
        gains = {r: table.gain("logits_t2", r, budget) for r in RIVALS}
        better = [ARM_NAMES[r] for r in RIVALS if ahead(gains[r]) < 0]
        listed = ", ".join(
            f"less {ARM_NAMES[rival]} {points(gain)}"
            for rival, gain in gains.items()
        )
        if all(ahead(gain) > 0 for gain in gains.values()):
            claim = (
                "the real distribution is ahead of all three rivals, and if "
                'it beats text, "dark knowledge" may be said'
            )
        elif better:
            claim = (
                f"{' and '.join(better)} did *better* than the real "
                "distribution: knowing what the teacher finds likely beside "
                "its first choice did not help here"
            )
        else:
            claim = (
                "it was not shown to be ahead of all three rivals, and no "
                "mechanism may be named; a rival whose interval ends near 0 "
                "explains the gain as well"
            )
        parts.append(f"with {budget} traces {claim} ({listed})")
    return f"**Why, where logits at T = 2 gain:** {'; '.join(parts)}."


def verdict(groups: Sequence[Group]) -> str:
    """Markdown; of the mini lab alone, as its last line says."""
    table = Table(groups)
    parts = [
        more_traces(table),
        table.sentence("logits_t2", "text"),
        mechanism(table),
        table.sentence("logits", "text_t1")
        + " (They differ in noise, in the filter, in how the text was sampled "
        "and, where the tuning says so, in rate. "
        + table.unplanned("logits", "text")
        + ")",
        table.sentence("logits_t2", "gold"),
    ]
    lines = [f"{i}. {part}" for i, part in enumerate(parts, start=1)]
    seeds = sorted({len(table.at["text", b].results) for b in TESTED})
    counted = " or ".join(map(str, seeds))
    return "\n".join(
        [*lines, f"\n{counted} seeds a budget, {len(table.primary)} primary "
         "contrasts, one teacher, one student, one kind of problem."]
    )  # fmt: skip
