"""Figures that compare lessons: differences, targets, costs, calibration."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import helpers.plots.style as style


def forest(
    panels: Mapping[str, Sequence[tuple[str, float, float, float, bool]]],
    title: str,
    *,
    xlabel: str,
    save: Path | None = None,
) -> None:
    """Paired differences with their intervals, zero marked; a panel a name.

    panels: rows (label, difference, low, high, sure), the first on top. A
    mark is filled where the corrected test is sure of a difference.
    """
    longest = max(map(len, panels.values()), default=1)
    ends = [end for rows in panels.values() for _, _, *two, _ in rows
            for end in two]  # fmt: skip
    room = 0.05 * (max(ends, default=1) - min(ends, default=0))
    size = (4.6 * len(panels) + 1.5, 1.6 + 0.62 * longest)
    with style.canvas(
        title, size=size, columns=len(panels), save=save
    ) as axes:
        for place, (name, rows) in enumerate(panels.items()):
            with style.figure(name, xlabel=xlabel, ylabel="",
                              ax=axes[place]) as ax:  # fmt: skip
                ax.axvline(0, color=style.INK, lw=1.2)
                for row, (_, gain, low, high, sure) in enumerate(rows):
                    inside = style.STUDENT if sure else "white"
                    ax.plot([low, high], [row, row], color=style.STUDENT)
                    ax.plot(gain, row, "o", ms=9, mew=2, mfc=inside,
                            color=style.STUDENT)  # fmt: skip
                labels = [label for label, *_ in rows]
                ax.set_yticks(range(len(rows)), labels if not place else [])
                ax.set_ylim(len(rows) - 0.4, -0.6)
                if ends:  # one axis for all panels
                    ax.set_xlim(min(*ends, 0) - room, max(*ends, 0) + room)


def targets(
    tokens: Sequence[str], rows: Mapping[str, Any], title: str
) -> None:
    """What each signal says at one position: a panel of bars a signal.

    rows: probabilities, one a token; the first token is the text's own.
    """
    size = (2.0 * len(rows) + 1.0, 3.6)
    with style.canvas(title, size=size, columns=len(rows)) as axes:
        places = np.arange(len(tokens))
        for number, (name, values) in enumerate(rows.items()):
            with style.figure(name, xlabel="probability", ylabel="",
                              ax=axes[number]) as ax:  # fmt: skip
                colours = [style.STUDENT] + [style.TEACHER] * len(tokens)
                ax.barh(places, style.array(values), color=colours[:-1])
                names = tokens if not number else [""] * len(tokens)
                ax.set_yticks(places, names, parse_math=False)
                ax.invert_yaxis()
                ax.set_xlim(0, 1)


def influence_bars(
    influence: Sequence[float], keep: Sequence[int], title: str
) -> None:
    """How much each block turns its input; dropped ones are hatched."""
    ylabel = "influence, 1 - cosine (log scale)"
    with style.figure(title, xlabel="block", ylabel=ylabel) as axes:
        for name, colour, hatch, inside in (
            ("kept", style.TEACHER, "", True),
            ("dropped", style.FAINT, "///", False),
        ):
            blocks = [i for i in range(len(influence))
                      if (i in keep) == inside]  # fmt: skip
            heights = [influence[i] for i in blocks]
            axes.bar(blocks, heights, label=name, color=colour, hatch=hatch,
                     edgecolor=style.INK)  # fmt: skip
        axes.set_yscale("log")
        axes.set_xticks(range(len(influence)))
        axes.legend(loc="upper right")


def reliability(curves: Mapping[str, Any], title: str) -> None:
    """Share of right guesses against the confidence in them; a line a name.

    curves: `Half.calibration`. Bins of fewer than 30 tokens are left out.
    """
    xlabel, ylabel = "probability of the likeliest token", "share right"
    square = (5.4, 4.0)
    with style.figure(
        title, xlabel=xlabel, ylabel=ylabel, size=square
    ) as axes:
        axes.plot([0, 1], [0, 1], color=style.REFERENCE, lw=1, ls=":",
                  label="calibrated")  # fmt: skip
        for place, (name, bins) in enumerate(curves.items()):
            count, sure, right = np.asarray(bins)
            full = count >= 30
            axes.plot(sure[full], right[full], ms=6, **style.look(name, place))
        axes.set_xlim(0, 1)
        style.share_axis(axes)
        axes.legend(loc="upper left")
