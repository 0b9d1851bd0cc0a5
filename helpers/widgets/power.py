"""How many problems and seeds it takes to see a difference of d points."""

from dataclasses import dataclass
from typing import Any, Self

import ipywidgets
import numpy as np
from matplotlib.figure import Figure
from scipy.stats import norm, t

from helpers.plots import style
from helpers.widgets.explorer import Explorer

PROBLEMS = (100, 200, 400, 800, 1600, 3200)


@dataclass(frozen=True)
class Spread:
    """Variances of a paired gain, in points squared.

    seeds: how much other seeds change its mean; problems: how much the gain
    differs between problems; rest: one seed's luck with one problem.
    """

    seeds: float
    problems: float
    rest: float

    @classmethod
    def of(cls, gains: Any) -> Self:
        """Of gains (seeds, problems): a two-way analysis of variance."""
        gains = np.asarray(gains, float)
        count, size = gains.shape
        by_seed, by_problem = gains.mean(1), gains.mean(0)
        left = gains - by_seed[:, None] - by_problem + gains.mean()
        rest = (left**2).sum() / ((count - 1) * (size - 1))
        return cls(
            max(0.0, by_seed.var(ddof=1) - rest / size),
            max(0.0, by_problem.var(ddof=1) - rest / count),
            rest,
        )

    def detectable(self, seeds: int, problems: Any) -> Any:
        """The true gain that a test at 5% finds in 80% of experiments.

        t with seeds - 1 degrees of freedom; with three seeds nearer to 75%.
        """
        problems = np.asarray(problems, float)
        variance = (
            self.seeds / seeds
            + self.problems / problems
            + self.rest / (seeds * problems)
        )
        return (t(seeds - 1).ppf(0.975) + norm.ppf(0.8)) * variance**0.5


class PowerExplorer(Explorer):
    """Sliders for seeds and problems over the smallest gain to be seen."""

    def __init__(self, spread: Spread, seeds: int = 3, problems: int = 400):
        super().__init__(size=(8.0, 4.2))
        self.spread = spread
        self.seeds = ipywidgets.IntSlider(
            seeds, min=2, max=20, description="seeds"
        )
        self.problems = ipywidgets.SelectionSlider(
            options=PROBLEMS, value=problems, description="problems"
        )
        self.watch(self.seeds, self.problems)

    def words(self) -> str:
        """The smallest gain that these find, in points."""
        seeds, problems = self.seeds.value, self.problems.value
        least = self.spread.detectable(seeds, problems)
        return (
            f"{seeds} seeds, {problems:,} problems: a gain of "
            f"<b>{least:.1f}</b> points is found four times in five."
        )

    def paint(self, drawn: Figure) -> None:
        """One line for the seeds chosen, three for reference."""
        style.headline(drawn, "More problems help until the seeds decide")
        xlabel, ylabel = "problems (log scale)", "smallest gain found (points)"
        with style.figure(
            "", xlabel=xlabel, ylabel=ylabel, ax=drawn.subplots()
        ) as axes:
            for count in (3, 5, 10):
                gains = self.spread.detectable(count, PROBLEMS)
                axes.plot(PROBLEMS, gains, color=style.REFERENCE, lw=1.2)
                axes.annotate(
                    f"{count} seeds", xy=(PROBLEMS[-1], gains[-1]),
                    xytext=(6, -4), textcoords="offset points",
                    color=style.REFERENCE,
                )  # fmt: skip
            gains = self.spread.detectable(self.seeds.value, PROBLEMS)
            axes.plot(PROBLEMS, gains, color=style.STUDENT)
            place = PROBLEMS.index(self.problems.value)
            axes.plot(PROBLEMS[place], gains[place], "o", ms=10,
                      color=style.STUDENT)  # fmt: skip
            style.log2_axis(axes, PROBLEMS)
            axes.set_ylim(0, 15)
            axes.margins(x=0.12)
