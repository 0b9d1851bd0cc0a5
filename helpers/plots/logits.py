"""The figures of notebook 05: budgets, covered mass, fitted targets, losses.

Line styles and markers repeat what the colours say.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from helpers.plots.style import (
    INK,
    REFERENCE,
    TEACHER,
    array,
    colour_of,
    figure,
    log2_on,
    look,
    shares_on,
)

if TYPE_CHECKING:
    from helpers.rebuild.arms import Group

_WIDE = (8.5, 4.2)
_OUTSIDE = {"loc": "center left", "bbox_to_anchor": (1.0, 0.5)}


def accuracy_against_budget(groups: Sequence[Group], title: str) -> None:
    """One line per arm over the number of traces, seeds pooled.

    Bars are 95% Wilson intervals of all answers, small dots single seeds.
    """
    xlabel, ylabel = "traces (log scale)", "accuracy"
    with figure(title, xlabel=xlabel, ylabel=ylabel, size=_WIDE) as axes:
        arms = list(dict.fromkeys(group.arm for group in groups))
        for place, arm in enumerate(arms):
            rows = [group for group in groups if group.arm == arm]
            style = look(arm, place) | {"label": rows[0].name}
            _draw_arm(axes, rows, style, place - (len(arms) - 1) / 2)
        budgets = sorted({group.budget for group in groups})
        axes.set_xscale("log")
        axes.set_xticks(budgets, [f"{budget:,}" for budget in budgets])
        axes.minorticks_off()
        axes.set_ylim(0, 1.02)
        shares_on(axes.yaxis)
        axes.grid(visible=False, axis="x")
        if groups:
            axes.legend(**_OUTSIDE)
        else:
            axes.text(0.5, 0.5, "no run yet", ha="center", color=REFERENCE,
                      transform=axes.transAxes)  # fmt: skip


def covered_mass(
    sizes: Sequence[int], shares: Mapping[str, Sequence[float]], title: str
) -> None:
    """Probability that the k likeliest tokens hold, over k; a line a name."""
    xlabel, ylabel = "k, tokens kept (log scale)", "probability covered"
    with figure(title, xlabel=xlabel, ylabel=ylabel, size=_WIDE) as axes:
        for place, (name, values) in enumerate(shares.items()):
            axes.plot(sizes, values, ms=8, **look(name, place))
        log2_on(axes, sizes)
        axes.set_ylim(0, 1.05)
        shares_on(axes.yaxis)
        axes.legend(**_OUTSIDE)
        axes.grid(visible=False, axis="x")


def fitted_targets(
    teacher: Any, fitted: Mapping[str, Any], kept: int, title: str
) -> None:
    """What free logits learn from each target, tokens by the teacher's rank.

    teacher, fitted: probabilities (vocab,), likeliest first. kept: how many
    tokens a top-k target keeps; the rest is shaded.
    """
    ranks = np.arange(1, len(teacher) + 1)
    xlabel, ylabel = "token, by the teacher's rank", "probability (log scale)"
    with figure(title, xlabel=xlabel, ylabel=ylabel, size=_WIDE) as axes:
        axes.plot(ranks, array(teacher), color=TEACHER, lw=6, alpha=0.3,
                  label="teacher")  # fmt: skip
        for place, (name, values) in enumerate(fitted.items()):
            axes.plot(ranks, array(values), markevery=(place, 4), ms=6,
                      lw=1.8, **look(name, place))  # fmt: skip
        axes.axvspan(kept + 0.5, len(ranks) + 0.5, color=REFERENCE,
                     alpha=0.08, lw=0)  # fmt: skip
        axes.text(kept + 1, 0.93, "not kept", color=INK,
                  transform=axes.get_xaxis_transform())  # fmt: skip
        axes.set_yscale("log")
        axes.set_xlim(0.5, len(ranks) + 0.5)
        axes.minorticks_off()
        axes.legend(**_OUTSIDE)


def loss_curves(
    curves: Mapping[str, tuple[Sequence[float], Sequence[float]]], title: str
) -> None:
    """Training losses over the steps: (steps, losses) by name.

    The first is the run with the teacher in memory, the second the cached.
    """
    xlabel, ylabel = "optimizer step", "loss (nats a token)"
    with figure(title, xlabel=xlabel, ylabel=ylabel) as axes:
        arms = ("logit_online", "logit_cached")
        for place, (name, (steps, losses)) in enumerate(curves.items()):
            style = look(name, place) | {"color": colour_of(arms[place % 2])}
            axes.plot(steps, losses, ms=9 - 4 * place, lw=3.4 - 1.6 * place,
                      **style)  # fmt: skip
        axes.set_ylim(bottom=0)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.legend(loc="upper right")
        axes.grid(visible=False, axis="x")


def _draw_arm(
    axes: Axes, rows: Sequence[Group], style: dict[str, Any], offset: float
) -> None:
    """One arm: pooled points with intervals, and a dot for each seed.

    Arms are moved aside by a few percent, so that bars do not hide bars.
    """
    places = [group.budget * 1.06**offset for group in rows]
    shares = np.array([group.accuracy for group in rows])
    low, high = np.array([group.interval for group in rows]).T
    axes.errorbar(places, shares, yerr=[shares - low, high - shares],
                  capsize=4, ms=8, elinewidth=1.4, **style)  # fmt: skip
    for x, group in zip(places, rows, strict=True):
        seeds = [result.accuracy for result in group.results]
        axes.plot([x] * len(seeds), seeds, ".", color=INK, ms=4, zorder=4)
