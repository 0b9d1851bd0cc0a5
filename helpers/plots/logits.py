"""The figures of notebook 05: budgets and fitted targets.

Line styles and markers repeat what the colours say.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

import helpers.plots.style as style
from helpers.rebuild.arms import Group

_WIDE = (8.5, 4.2)  # inches; the legend stands beside the axes
_BESIDE = {"loc": "center left", "bbox_to_anchor": (1.0, 0.5)}


def accuracy_against(
    groups: Sequence[Group], title: str, measure: str = ""
) -> None:
    """One line per arm over the traces, the mean of its seeds.

    measure: over the median of a `judged` one instead, such as
    "training_seconds". Bars are 95% intervals for other seeds and problems.
    """
    xlabel = measure.replace("_", " ") or "traces"
    xlabel, ylabel = f"{xlabel} (log scale)", "accuracy (%)"
    with style.figure(title, xlabel=xlabel, ylabel=ylabel, size=_WIDE) as axes:
        for place, name in enumerate(dict.fromkeys(g.name for g in groups)):
            rows = [group for group in groups if group.name == name]
            told = np.array([group.told() for group in rows])
            aside = 1.03 ** (place - 2)  # so that bars do not hide bars
            x = [g.middle(measure) if measure else g.budget * aside
                 for g in rows]  # fmt: skip
            axes.errorbar(
                x, told[:, 0], yerr=abs(told[:, 1:].T - told[:, 0]), ms=8,
                capsize=4, elinewidth=1.4, **style.look(name, place),
            )  # fmt: skip
        axes.set_xscale("log")
        if not measure:
            budgets = sorted({group.budget for group in groups})
            axes.set_xticks(budgets, [f"{budget:,}" for budget in budgets])
            axes.minorticks_off()
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
