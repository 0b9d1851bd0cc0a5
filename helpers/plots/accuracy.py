"""Every figure of the course, in one look.

Blue is always the teacher, orange the student, grey the reference and teal
the thing to notice; no figure says anything by colour alone. The title
states the finding. Each function draws, shows and closes its figure; `save`
also writes it to a PNG.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator, PercentFormatter

from helpers.evaluate import wilson_interval
from helpers.plots.style import (
    ACCENT,
    INK,
    REFERENCE,
    STUDENT,
    TEACHER,
    canvas,
    colour_of,
    figure,
)
from helpers.widgets.token_strip import token_strip_html

__all__ = [
    "ACCENT",
    "REFERENCE",
    "STUDENT",
    "TEACHER",
    "accuracy_against",
    "accuracy_bars",
    "colour_of",
    "figure",
    "learning_curve",
    "length_histogram",
    "nf4_error_plot",
    "token_strip_html",
]

_PLATE = {"facecolor": "white", "alpha": 0.75, "lw": 0, "pad": 1.0}
Row = tuple[str, int, int]


def accuracy_bars(
    results: Iterable[Any], title: str, *, save: Path | None = None
) -> None:
    """Horizontal bars of accuracy with their 95% Wilson intervals.

    results: `Result` objects, or rows (label, correct, n). The first is on
    top.
    """
    rows = [_row(result) for result in results]
    height = 1.5 + 0.62 * len(rows)
    with figure(
        title, xlabel="accuracy", ylabel="", size=(8.5, height), save=save
    ) as axes:
        for place, (label, correct, total) in enumerate(rows):
            low, high = wilson_interval(correct, total)
            share = correct / total
            colour = colour_of(label)
            axes.barh(place, share, height=0.62, color=colour)
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
        axes.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
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
            points = [(row["step"], row[key]) for row in log_history
                      if key in row]  # fmt: skip
            if points:
                axes.plot(*zip(*points, strict=True), style, color=colour,
                          label=label)  # fmt: skip
        _mark_epochs(axes, log_history)
        axes.set_ylim(bottom=0)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        if axes.lines:
            axes.legend(loc="upper right")
        axes.grid(visible=False, axis="x")


def length_histogram(
    lengths_by_name: Mapping[str, Sequence[int]],
    title: str,
    *,
    xlabel: str = "length (tokens)",
    save: Path | None = None,
) -> None:
    """How long the texts of each group are, with each group's median."""
    groups = {name: np.asarray(x) for name, x in lengths_by_name.items()}
    longest = max((x.max() for x in groups.values() if x.size), default=1)
    edges = np.linspace(0, longest + 1, 31)
    with figure(title, xlabel=xlabel, ylabel="texts", save=save) as axes:
        for place, (name, lengths) in enumerate(groups.items()):
            if not lengths.size:
                continue
            colour = colour_of(name, place=place)
            middle = float(np.median(lengths))
            label = f"{name}: median {middle:g}, n = {lengths.size}"
            axes.hist(
                lengths, bins=edges, histtype="stepfilled", alpha=0.35,
                color=colour,
            )  # fmt: skip
            axes.hist(
                lengths, bins=edges, histtype="step", linewidth=2,
                color=colour, label=label, linestyle=("-", "--")[place % 2],
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
    save: Path | None = None,
) -> None:
    """Accuracy over a setting, a point a run, with 95% Wilson intervals.

    total: problems behind every point, or behind each. log2: a logarithmic
    axis for ranks and the like. references: dashed levels by name, 0 to 1.
    """
    totals = [total] * len(x) if isinstance(total, int) else list(total)
    runs = sorted(zip(x, correct, totals, strict=True))
    with figure(title, xlabel=xlabel, ylabel="accuracy", save=save) as axes:
        _draw_runs(axes, runs, log2=log2)
        for name, level in (references or {}).items():
            axes.axhline(
                level, color=colour_of(name, place=2), ls="--", lw=1.6
            )
            axes.text(
                1.01, level, f"{name}\n{level:.1%}", va="center",
                color=colour_of(name, place=2),
                transform=axes.get_yaxis_transform(),
            )  # fmt: skip
        axes.set_ylim(0, 1.02)
        axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
        axes.grid(visible=False, axis="x")


def nf4_error_plot(
    original: Any,
    dequantized: Any,
    title: str,
    *,
    block: int = 64,
    save: Path | None = None,
) -> None:
    """What 4 bits do to weights: the staircase, and the error they leave.

    original, dequantized: tensors of one shape, in any floating type. Left,
    the first `block` weights, which share one scale, so that their levels
    line up; right, the error of all of them.
    """
    before, after = _flat(original), _flat(dequantized)
    error = after - before
    relative = np.linalg.norm(error) / max(np.linalg.norm(before), 1e-30)
    with canvas(title, size=(9.5, 4.0), save=save, columns=2) as panels:
        _draw_stairs(panels[0], before[:block], after[:block])
        panels[1].hist(error, bins=61, color=ACCENT)
        panels[1].set(xlabel="error (after minus before)", ylabel="weights")
        panels[1].set_ylim(top=panels[1].get_ylim()[1] * 1.15)
        panels[1].text(
            0.98, 0.97, f"relative error {relative:.1%}\nn = {error.size:,}",
            ha="right", va="top", transform=panels[1].transAxes,
            fontweight="bold",
        )  # fmt: skip
        for panel in panels:
            panel.xaxis.set_major_locator(MaxNLocator(5))


# --- parts ------------------------------------------------------------------


def _row(result: Any) -> Row:
    """(label, correct, n) of a Result or of such a row."""
    if isinstance(result, tuple):
        label, correct, total = result
        return str(label), int(correct), int(total)
    label = result.arm.replace("_", " ")
    mode = f" ({result.mode})" if result.mode else ""
    return label + mode, result.correct, result.n


def _mark_epochs(
    axes: Axes, log_history: Sequence[Mapping[str, float]]
) -> None:
    """A thin line with a number wherever an epoch is complete."""
    ends: dict[int, float] = {}
    for row in log_history:
        epoch = row.get("epoch", 0.0)
        if epoch >= 1 and float(epoch).is_integer():
            ends[int(epoch)] = row["step"]
    for epoch, step in ends.items():
        axes.axvline(step, color=REFERENCE, lw=1, ls=":")
        axes.text(step, 0.02, f"epoch {epoch} ", ha="right", color=REFERENCE,
                  transform=axes.get_xaxis_transform())  # fmt: skip


def _draw_runs(
    axes: Axes, runs: list[tuple[float, int, int]], *, log2: bool
) -> None:
    if not runs:
        axes.set_xticks([])
        axes.text(0.5, 0.5, "no run yet", ha="center", color=REFERENCE,
                  transform=axes.transAxes)  # fmt: skip
        return
    places = [x for x, _, _ in runs]
    shares = [correct / total for _, correct, total in runs]
    ends = [wilson_interval(correct, total) for _, correct, total in runs]
    spread = [
        [share - low for share, (low, _) in zip(shares, ends, strict=True)],
        [high - share for share, (_, high) in zip(shares, ends, strict=True)],
    ]
    axes.errorbar(places, shares, yerr=spread, fmt="o-", color=STUDENT,
                  ecolor=INK, elinewidth=1.4, capsize=4, ms=8)  # fmt: skip
    for x, share, (_, high) in zip(places, shares, ends, strict=True):
        axes.text(x, high + 0.02, f"{share:.0%}", ha="center", va="bottom",
                  fontweight="bold", zorder=4, bbox=_PLATE)  # fmt: skip
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    if log2:
        axes.set_xscale("log", base=2)
        axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
        axes.set_xticks(sorted(set(places)))
        axes.minorticks_off()


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


def _flat(tensor: Any) -> np.ndarray:
    if hasattr(tensor, "detach"):
        tensor = tensor.detach().float().cpu().numpy()
    return np.asarray(tensor, dtype=np.float64).ravel()
