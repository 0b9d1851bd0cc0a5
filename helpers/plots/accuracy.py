"""Scores, losses, lengths and 4-bit weights: notebooks 00 and 02 to 06."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from helpers.evaluate import wilson_interval
from helpers.plots.style import (  # noqa: F401
    ACCENT,
    INK,
    REFERENCE,
    STUDENT,
    TEACHER,
    array,
    canvas,
    colour_of,
    figure,
    log2_on,
    shares_on,
)
from helpers.widgets.token_strip import token_strip_html  # noqa: F401

_PLATE = {"facecolor": "white", "alpha": 0.75, "lw": 0, "pad": 1.0}


def accuracy_bars(
    results: Iterable[Any], title: str, *, save: Path | None = None
) -> None:
    """Horizontal bars of accuracy with their 95% Wilson intervals.

    results: `Result` objects, or rows (label, correct, n). The first is on
    top.
    """
    rows = [_row(result) for result in results]
    size = (8.5, 1.5 + 0.62 * len(rows))
    with figure(
        title, xlabel="accuracy", ylabel="", size=size, save=save
    ) as axes:
        for place, (label, correct, total) in enumerate(rows):
            low, high = wilson_interval(correct, total)
            share = correct / total
            axes.barh(place, share, height=0.62, color=colour_of(label))
            axes.errorbar(
                share, place, xerr=[[share - low], [high - share]],
                color=INK, capsize=4, linewidth=1.6,
            )  # fmt: skip
            axes.text(
                high + 0.015, place, f"{share:.1%}  ({correct}/{total})",
                va="center", fontweight="bold",
            )  # fmt: skip
        labels = [f"{label}\nn = {total}" for label, _, total in rows]
        axes.set_yticks(range(len(rows)), labels)
        axes.set_xlim(0, 1.25)
        axes.set_xticks(np.linspace(0, 1, 6))
        shares_on(axes.xaxis)
        axes.invert_yaxis()
        axes.spines["bottom"].set_bounds(0, 1)
        axes.grid(visible=False, axis="y")


def learning_curve(
    log_history: Sequence[Mapping[str, float]],
    title: str,
    *,
    save: Path | None = None,
) -> None:
    """Training and evaluation loss over the steps, with the epochs marked.

    log_history: `trainer.state.log_history` of a Hugging Face trainer.
    """
    with figure(
        title, xlabel="optimizer step", ylabel="loss (nats a token)", save=save
    ) as axes:
        for key, label, colour, style in (
            ("loss", "training", STUDENT, "-"),
            ("eval_loss", "evaluation", ACCENT, "o--"),
        ):
            points = [(r["step"], r[key]) for r in log_history if key in r]
            if points:
                steps, losses = zip(*points, strict=True)
                axes.plot(steps, losses, style, color=colour, label=label)
        for epoch, step in enumerate(epoch_ends(log_history), start=1):
            axes.axvline(step, color=REFERENCE, lw=1, ls=":")
            axes.text(step, 0.02, f"epoch {epoch} ", ha="right",
                      color=REFERENCE, transform=axes.get_xaxis_transform()
                      )  # fmt: skip
        axes.set_ylim(bottom=0)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        if axes.get_legend_handles_labels()[1]:
            axes.legend(loc="upper right")
        axes.grid(visible=False, axis="x")


def epoch_ends(log_history: Sequence[Mapping[str, float]]) -> list[float]:
    """The optimizer step at the end of every finished epoch.

    Losses are logged every few steps, seldom where an epoch ends: the last
    row says how many steps an epoch has.
    """
    rows = [row for row in log_history if row.get("epoch")]
    if not rows:
        return []
    epochs, steps = rows[-1]["epoch"], rows[-1]["step"]
    finished = int(epochs + 1e-3)
    return [steps / epochs * epoch for epoch in range(1, finished + 1)]


def length_histogram(
    lengths_by_name: Mapping[str, Sequence[int]],
    title: str,
    *,
    xlabel: str = "length (tokens)",
) -> None:
    """How long the texts of each group are, with each group's median."""
    groups = {name: np.asarray(x) for name, x in lengths_by_name.items()}
    longest = max((x.max() for x in groups.values() if x.size), default=1)
    edges = np.linspace(0, longest + 1, 31)
    with figure(title, xlabel=xlabel, ylabel="texts") as axes:
        for place, (name, lengths) in enumerate(groups.items()):
            if not lengths.size:
                continue
            colour = colour_of(name, place=place)
            middle = float(np.median(lengths))
            axes.hist(lengths, bins=edges, alpha=0.35, color=colour)
            axes.hist(
                lengths, bins=edges, histtype="step", linewidth=2,
                color=colour, linestyle=("-", "--")[place % 2],
                label=f"{name}: median {middle:g}, n = {lengths.size}",
            )  # fmt: skip
            axes.axvline(middle, ymax=0.74, color=colour, ls=":")
        axes.set_xlim(0, longest + 1)
        axes.set_ylim(top=axes.get_ylim()[1] * 1.3)  # room for the legend
        if axes.lines:
            axes.legend(loc="upper right")
        axes.grid(visible=False, axis="x")


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
    totals = [total] * len(x) if isinstance(total, int) else list(total)
    runs = list(zip(x, correct, totals, strict=True))
    with figure(title, xlabel=xlabel, ylabel="accuracy") as axes:
        for place, right, asked in runs:
            low, high = wilson_interval(right, asked)
            share = right / asked
            axes.errorbar(
                place, share, yerr=[[share - low], [high - share]], fmt="o",
                color=STUDENT, ecolor=INK, elinewidth=1.4, capsize=4, ms=8,
            )  # fmt: skip
            axes.text(place, high + 0.02, f"{share:.0%}", ha="center",
                      fontweight="bold", zorder=4, bbox=_PLATE)  # fmt: skip
        if not runs:
            axes.text(0.5, 0.5, "no run yet", ha="center", color=REFERENCE,
                      transform=axes.transAxes)  # fmt: skip
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        if log2 and runs:
            log2_on(axes, x)
        for name, level in (references or {}).items():
            colour = colour_of(name, place=2)
            axes.axhline(level, color=colour, ls="--", lw=1.6)
            axes.text(
                1.01, level, f"{name}\n{level:.1%}", va="center",
                color=colour, transform=axes.get_yaxis_transform(),
            )  # fmt: skip
        axes.set_ylim(0, 1.02)
        shares_on(axes.yaxis)
        axes.grid(visible=False, axis="x")


def nf4_error_plot(
    original: Any, dequantized: Any, title: str, *, block: int = 64
) -> None:
    """What 4 bits do to weights: the staircase, and the error they leave.

    original, dequantized: tensors of one shape, in any floating type. Left,
    the first `block` weights, which share one scale, so that their levels
    line up; right, the error of all of them.
    """
    before, after = array(original).ravel(), array(dequantized).ravel()
    error = after - before
    relative = np.linalg.norm(error) / max(np.linalg.norm(before), 1e-30)
    with canvas(title, size=(9.5, 4.0), columns=2) as (stairs, errors):
        _draw_stairs(stairs, before[:block], after[:block])
        errors.hist(error, bins=61, color=ACCENT)
        errors.set(xlabel="error (after minus before)", ylabel="weights")
        errors.set_ylim(top=errors.get_ylim()[1] * 1.15)
        errors.text(
            0.98, 0.97, f"relative error {relative:.1%}\nn = {error.size:,}",
            ha="right", va="top", transform=errors.transAxes,
            fontweight="bold",
        )  # fmt: skip
        for panel in (stairs, errors):
            panel.xaxis.set_major_locator(MaxNLocator(5))


def _row(result: Any) -> tuple[str, int, int]:
    """(label, correct, n) of a Result or of such a row."""
    if isinstance(result, tuple):
        return result
    mode = f" ({result.mode})" if result.mode else ""
    return result.arm.replace("_", " ") + mode, result.correct, result.n


def _draw_stairs(axes: Axes, before: np.ndarray, after: np.ndarray) -> None:
    """Weights of one block against what 4 bits keep of them."""
    levels = np.unique(after)
    reach = np.abs(before).max(initial=1e-30) * 1.05
    axes.plot([-reach, reach], [-reach, reach], color=REFERENCE, lw=1.4,
              label="no error")  # fmt: skip
    axes.vlines(before, np.minimum(before, after), np.maximum(before, after),
                color=STUDENT, lw=1.2, alpha=0.6)  # fmt: skip
    axes.scatter(before, after, s=26, color=STUDENT, zorder=3,
                 label=f"{before.size} weights, {levels.size} levels"
                 )  # fmt: skip
    axes.set(xlabel="weight before", ylabel="weight after NF4")
    named = {0, int(np.abs(levels).argmin()), len(levels) - 1}
    labels = [
        f"{level:.2g}" if place in named else ""
        for place, level in enumerate(levels)
    ]
    axes.set_yticks(levels, labels)
    axes.grid(visible=False, axis="x")
    axes.legend(loc="lower right")
