"""The figures of notebook 05: budgets, covered mass, fitted targets, losses.

Line styles and markers repeat what the colours say.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.ticker import FuncFormatter, MaxNLocator, PercentFormatter

from helpers.plots.style import (
    ACCENT,
    INK,
    PALETTE,
    REFERENCE,
    STUDENT,
    TEACHER,
    figure,
)
from helpers.rebuild.arms import Group

_MARKERS = "osD^v"
_LINES = ("-", "--", "-.", ":", (0, (5, 1)))
_COLOURS = (REFERENCE, STUDENT, ACCENT, "#7b3294", TEACHER)


def accuracy_against_budget(
    groups: Sequence[Group], title: str, *, save: Path | None = None
) -> None:
    """One line per arm over the number of traces, seeds pooled.

    Bars are 95% Wilson intervals of all answers, small dots single seeds.
    """
    with figure(
        title, xlabel="traces (log scale)", ylabel="accuracy",
        size=(8.5, 4.4), save=save,
    ) as axes:  # fmt: skip
        arms = list(dict.fromkeys(group.arm for group in groups))
        for place, arm in enumerate(arms):
            own = [group for group in groups if group.arm == arm]
            _draw_arm(axes, own, place, 1.06 ** (place - len(arms) / 2 + 0.5))
        budgets = sorted({group.budget for group in groups})
        axes.set_xscale("log")
        axes.set_xticks(budgets, [f"{budget:,}" for budget in budgets])
        axes.minorticks_off()
        axes.set_ylim(0, 1.02)
        axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
        axes.grid(visible=False, axis="x")
        if groups:
            axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
        else:
            axes.text(0.5, 0.5, "no run yet", ha="center", color=REFERENCE,
                      transform=axes.transAxes)  # fmt: skip


def covered_mass(
    sizes: Sequence[int],
    shares: Mapping[str, Sequence[float]],
    title: str,
    *,
    save: Path | None = None,
) -> None:
    """Probability that the k likeliest tokens hold, over k; a line a name."""
    with figure(
        title, xlabel="k, tokens kept (log scale)",
        ylabel="probability covered", size=(8.5, 4.0), save=save,
    ) as axes:  # fmt: skip
        for place, (name, values) in enumerate(shares.items()):
            axes.plot(
                sizes, values, marker=_MARKERS[place % 5], ms=8, label=name,
                color=(TEACHER, STUDENT, ACCENT, REFERENCE)[place % 4],
                linestyle=_LINES[place % 4],
            )  # fmt: skip
        axes.set_xscale("log", base=2)
        axes.xaxis.set_major_formatter(FuncFormatter(lambda k, _: f"{k:g}"))
        axes.set_xticks(list(sizes))
        axes.minorticks_off()
        axes.set_ylim(0, 1.05)
        axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
        axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
        axes.grid(visible=False, axis="x")


def fitted_targets(
    teacher: Any,
    fitted: Mapping[str, Any],
    kept: int,
    title: str,
    *,
    save: Path | None = None,
) -> None:
    """What free logits learn from each target, tokens by the teacher's rank.

    teacher, fitted: probabilities (vocab,), likeliest first. kept: how many
    tokens a top-k target keeps; the rest is shaded.
    """
    ranks = np.arange(1, len(teacher) + 1)
    with figure(
        title, xlabel="token, by the teacher's rank",
        ylabel="probability (log scale)", size=(8.5, 4.2), save=save,
    ) as axes:  # fmt: skip
        axes.plot(ranks, _array(teacher), color=TEACHER, lw=6, alpha=0.3,
                  label="teacher")  # fmt: skip
        for place, (name, values) in enumerate(fitted.items()):
            axes.plot(
                ranks, _array(values), color=PALETTE[place % len(PALETTE)],
                marker=_MARKERS[place % 5], markevery=(place, 4), ms=6,
                lw=1.8, linestyle=_LINES[place % 4], label=name,
            )  # fmt: skip
        axes.axvspan(kept + 0.5, len(ranks) + 0.5, color=REFERENCE,
                     alpha=0.08, lw=0)  # fmt: skip
        axes.text(kept + 1, 0.93, "not kept", color=INK,
                  transform=axes.get_xaxis_transform())  # fmt: skip
        axes.set_yscale("log")
        axes.set_xlim(0.5, len(ranks) + 0.5)
        axes.minorticks_off()
        axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))


def loss_curves(
    curves: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    title: str,
    *,
    save: Path | None = None,
) -> None:
    """Training losses over the steps: (steps, losses) by name."""
    with figure(
        title, xlabel="optimizer step", ylabel="loss (nats a token)", save=save
    ) as axes:
        for place, (name, (steps, losses)) in enumerate(curves.items()):
            axes.plot(
                steps, losses, label=name, color=(TEACHER, STUDENT)[place % 2],
                linestyle=_LINES[place % 4], marker=_MARKERS[place % 5],
                ms=9 - 4 * place, lw=3.4 - 1.6 * place,
            )  # fmt: skip
        axes.set_ylim(bottom=0)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.legend(loc="upper right")
        axes.grid(visible=False, axis="x")


# --- parts ------------------------------------------------------------------


def _draw_arm(
    axes: Any, own: Sequence[Group], place: int, aside: float
) -> None:
    """One arm: pooled points with intervals, and a dot for each seed.

    Arms are moved aside by a few percent, so that bars do not hide bars.
    """
    places = [group.budget * aside for group in own]
    shares = [group.accuracy for group in own]
    ends = [group.interval for group in own]
    low = [share - end[0] for share, end in zip(shares, ends, strict=True)]
    high = [end[1] - share for share, end in zip(shares, ends, strict=True)]
    axes.errorbar(
        places, shares, yerr=[low, high], color=_COLOURS[place], capsize=4,
        marker=_MARKERS[place], ms=8, linestyle=_LINES[place],
        elinewidth=1.4, label=own[0].name,
    )  # fmt: skip
    for x, group in zip(places, own, strict=True):
        seeds = [result.accuracy for result in group.results]
        axes.plot([x] * len(seeds), seeds, ".", color=INK, ms=4, zorder=4)


def _array(values: Any) -> np.ndarray:
    if hasattr(values, "detach"):
        values = values.detach().cpu().double().numpy()
    return np.asarray(values, dtype=np.float64)
