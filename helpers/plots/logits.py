"""The figures of notebook 05: budgets, covered mass, fitted targets, losses.

Line styles and markers repeat what the colours say.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

import helpers.plots.style as style
from helpers.rebuild.arms import Group

_WIDE = (8.5, 4.2)  # inches; the legend stands beside the axes
_BESIDE = {"loc": "center left", "bbox_to_anchor": (1.0, 0.5)}


def accuracy_against_budget(groups: Sequence[Group], title: str) -> None:
    """One line per arm over the number of traces, the mean of its seeds.

    Bars are 95% intervals for other seeds and problems, small dots single
    seeds. Arms are moved aside by a few percent, so that bars do not hide
    bars.
    """
    xlabel, ylabel = "traces (log scale)", "accuracy (%)"
    with style.figure(title, xlabel=xlabel, ylabel=ylabel, size=_WIDE) as axes:
        arms = list(dict.fromkeys(group.arm for group in groups))
        for place, arm in enumerate(arms):
            rows = [group for group in groups if group.arm == arm]
            aside = 1.06 ** (place - (len(arms) - 1) / 2)
            told = np.array([group.told() for group in rows])
            reach = abs(told[:, 1:].T - told[:, 0])
            axes.errorbar(
                [group.budget * aside for group in rows], told[:, 0],
                yerr=reach, capsize=4, ms=8, elinewidth=1.4,
                **style.look(arm, place) | {"label": rows[0].name},
            )  # fmt: skip
            for group in rows:
                seeds = [100 * result.accuracy for result in group.results]
                axes.plot([group.budget * aside] * len(seeds), seeds, ".",
                          color=style.INK, ms=4, zorder=4)  # fmt: skip
        budgets = sorted({group.budget for group in groups})
        axes.set_xscale("log")
        axes.set_xticks(budgets, [f"{budget:,}" for budget in budgets])
        axes.minorticks_off()
        axes.set_ylim(0, 102)
        if groups:
            axes.legend(**_BESIDE)
        else:
            axes.text(0.5, 0.5, "no run yet", transform=axes.transAxes)


def covered_mass(
    sizes: Sequence[int], shares: Mapping[str, Sequence[float]], title: str
) -> None:
    """Probability that the k likeliest tokens hold, over k; a line a name."""
    xlabel, ylabel = "k, tokens kept (log scale)", "probability covered"
    with style.figure(title, xlabel=xlabel, ylabel=ylabel, size=_WIDE) as axes:
        for place, (name, values) in enumerate(shares.items()):
            axes.plot(sizes, values, ms=8, **style.look(name, place))
        style.log2_axis(axes, sizes)
        style.share_axis(axes, top=1.05)
        axes.legend(**_BESIDE)


def fitted_targets(
    teacher: Any, fitted: Mapping[str, Any], kept: int, title: str
) -> None:
    """What free logits learn from each target, tokens by the teacher's rank.

    teacher, fitted: probabilities (vocab,), likeliest first. kept: how many
    tokens a top-k target keeps; the rest is shaded.
    """
    ranks = np.arange(1, len(teacher) + 1)
    xlabel, ylabel = "token, by the teacher's rank", "probability (log scale)"
    with style.figure(title, xlabel=xlabel, ylabel=ylabel, size=_WIDE) as axes:
        axes.plot(ranks, style.array(teacher), color=style.TEACHER, lw=6,
                  alpha=0.3, label="teacher")  # fmt: skip
        for place, (name, values) in enumerate(fitted.items()):
            axes.plot(ranks, style.array(values), markevery=(place, 4), ms=6,
                      lw=1.8, **style.look(name, place))  # fmt: skip
        axes.axvspan(kept + 0.5, len(ranks) + 0.5, color=style.REFERENCE,
                     alpha=0.08, lw=0)  # fmt: skip
        axes.text(kept + 1, 0.93, "not kept", color=style.INK,
                  transform=axes.get_xaxis_transform())  # fmt: skip
        axes.set(yscale="log", xlim=(0.5, len(ranks) + 0.5))
        axes.minorticks_off()
        axes.legend(**_BESIDE)


def loss_curves(
    curves: Mapping[str, tuple[Sequence[float], Sequence[float]]], title: str
) -> None:
    """Training losses over the steps: (steps, losses) by name.

    The first is the run with the teacher in memory, the second the cached.
    """
    xlabel, ylabel = "optimizer step", "loss (nats a token)"
    with style.figure(title, xlabel=xlabel, ylabel=ylabel) as axes:
        arms = ("logit_online", "logit_cached")
        for place, (name, (steps, losses)) in enumerate(curves.items()):
            look = style.look(arms[place], place) | {"label": name}
            axes.plot(steps, losses, ms=9 - 4 * place, lw=3.4 - 1.6 * place,
                      **look)  # fmt: skip
        axes.set_ylim(bottom=0)
        axes.locator_params(axis="x", integer=True)
        axes.legend(loc="upper right")
