"""Scores, losses, lengths and 4-bit weights: notebooks 00 and 02 to 06."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import helpers.plots.style as style
from helpers.evaluate import wilson_interval
from helpers.plots.lines import line_chart  # noqa: F401
from helpers.plots.style import REFERENCE, TEACHER, figure  # noqa: F401
from helpers.widgets.token_strip import token_strip_html  # noqa: F401

_PLATE = {"facecolor": "white", "alpha": 0.75, "lw": 0, "pad": 1.0}


def accuracy_bars(
    results: Iterable[Any], title: str, *, save: Path | None = None
) -> None:
    """Horizontal bars of accuracy with their 95% Wilson intervals.

    results: `Result` objects, or rows (label, correct, n). The first is on
    top.
    """
    rows = [row if isinstance(row, tuple) else _row(row) for row in results]
    shares, reach = intervals([row[1:] for row in rows])
    size = (8.5, 1.5 + 0.62 * len(rows))
    with figure(
        title, xlabel="accuracy", ylabel="", size=size, save=save
    ) as axes:
        bars = axes.barh(
            range(len(rows)), shares, height=0.62,
            color=[style.colour_of(label) for label, _, _ in rows],
            tick_label=[f"{label}\nn = {total}" for label, _, total in rows],
            xerr=reach, ecolor=style.INK, capsize=4,
            error_kw={"linewidth": 1.6},
        )  # fmt: skip
        labels = [f"{c / total:.1%}  ({c}/{total})" for _, c, total in rows]
        axes.bar_label(bars, labels, padding=6, fontweight="bold")
        axes.set(xlim=(0, 1.25), xticks=np.linspace(0, 1, 6))
        axes.xaxis.set_major_formatter("{x:.0%}")
        axes.invert_yaxis()
        axes.spines["bottom"].set_bounds(0, 1)


def length_histogram(
    lengths_by_name: Mapping[str, Sequence[int]], title: str
) -> None:
    """How long the texts of each group are, with each group's median."""
    groups = {name: x for name, x in lengths_by_name.items() if len(x)}
    edges = np.linspace(0, max(map(max, groups.values()), default=1) + 1, 31)
    with figure(title, xlabel="length (tokens)", ylabel="texts") as axes:
        for place, (name, lengths) in enumerate(groups.items()):
            colour = style.colour_of(name, place=place)
            middle = np.median(lengths)
            axes.hist(
                lengths, bins=edges, histtype="stepfilled", linewidth=2,
                facecolor=(colour, 0.35), edgecolor=colour,
                linestyle=style.LINES[place % 2],
                label=f"{name}: median {middle:g}, n = {len(lengths)}",
            )  # fmt: skip
            axes.axvline(middle, ymax=0.74, color=colour, ls=":")
            axes.legend(loc="upper right")
        axes.set_xlim(0, edges[-1])
        axes.set_ylim(top=axes.get_ylim()[1] * 1.3)  # room for the legend


def accuracy_against(
    x: Sequence[float],
    correct: Sequence[int],
    total: int | Sequence[int],
    xlabel: str,
    title: str,
    *,
    log2: bool = False,
    references: Mapping[str, float] | None = None,
) -> None:
    """Accuracy over a setting, a point a run, with 95% Wilson intervals.

    total: problems behind every point, or behind each. log2: a logarithmic
    axis for ranks and the like. references: dashed levels by name, 0 to 1.
    """
    totals = [total] * len(x) if isinstance(total, int) else total
    counts = list(zip(correct, totals, strict=True))
    with figure(title, xlabel=xlabel, ylabel="accuracy") as axes:
        axes.locator_params(axis="x", integer=True)
        if log2:
            style.log2_axis(axes, x)
        shares, reach = intervals(counts)
        axes.errorbar(
            x, shares, yerr=reach, fmt="o", ms=8, color=style.STUDENT,
            ecolor=style.INK, elinewidth=1.4, capsize=4,
        )  # fmt: skip
        for place, share, high in zip(x, shares, reach[1], strict=True):
            axes.text(
                place, share + high + 0.02, f"{share:.0%}", ha="center",
                fontweight="bold", zorder=4, bbox=_PLATE,
            )  # fmt: skip
        for name, level in (references or {}).items():
            colour = style.colour_of(name, place=2)
            axes.axhline(level, color=colour, ls="--", lw=1.6)
            axes.text(
                1.01, level, f"{name}\n{level:.1%}", va="center",
                color=colour, transform=axes.get_yaxis_transform(),
            )  # fmt: skip
        style.share_axis(axes)


def nf4_error_plot(
    original: Any, dequantized: Any, codes: Any, title: str, *, block: int = 64
) -> None:
    """What 4 bits do to weights: the staircase, and how levels are used.

    original, dequantized: tensors of one shape, in any floating type; codes:
    the level, 0 to 15, of each weight. Left, the first `block` weights,
    which share one scale, so that their levels line up.
    """
    few = style.array(original).ravel()[:block]
    rounded = style.array(dequantized).ravel()[:block]
    used = np.bincount(style.array(codes).ravel().astype(int), minlength=16)
    with style.canvas(title, size=(9.5, 4.0), columns=2) as (stairs, levels):
        stairs.axline((0, 0), slope=1, color=REFERENCE, lw=1.4,
                      label="no error")  # fmt: skip
        stairs.vlines(few, few, rounded, color=style.STUDENT, lw=1.2,
                      alpha=0.6)  # fmt: skip
        stairs.scatter(few, rounded, s=26, color=style.STUDENT, zorder=3,
                       label=f"{few.size} weights, {len(set(rounded))} levels"
                       )  # fmt: skip
        stairs.set(xlabel="weight before", ylabel="weight after NF4")
        stairs.locator_params(axis="x", nbins=5)
        stairs.legend(loc="lower right")
        levels.bar(range(16), used / used.sum(), color=style.ACCENT,
                   edgecolor=style.INK)  # fmt: skip
        levels.axhline(1 / 16, color=style.INK, lw=1.4, ls="--",
                       label="used equally often")  # fmt: skip
        levels.set(xlabel="level", ylabel="share of the weights")
        levels.locator_params(axis="x", integer=True)
        levels.set_ylim(top=1.35 * max(used / used.sum()))
        levels.yaxis.set_major_formatter("{x:.0%}")
        levels.legend(loc="upper right")


def intervals(counts: Sequence[tuple[int, int]]) -> tuple[Any, Any]:
    """Accuracies (rows,) of (correct, n), and error bars for them (2, rows).

    The bars reach down and up to the ends of the 95% Wilson intervals.
    """
    shares = np.array([correct / total for correct, total in counts])
    ends = [wilson_interval(*count) for count in counts]
    return shares, np.abs(np.reshape(ends, (-1, 2)).T - shares)


def _row(result: Any) -> tuple[str, int, int]:
    """(label, correct, n) of a Result."""
    mode = f" ({result.mode})" if result.mode else ""
    return result.arm.replace("_", " ") + mode, result.correct, result.n
