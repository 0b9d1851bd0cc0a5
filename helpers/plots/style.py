"""The look that all figures of the course share, and each arm's one colour."""

from __future__ import annotations

import contextlib
import io
import textwrap
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, PercentFormatter

TEACHER, STUDENT = "#1f4e8c", "#d9822b"
REFERENCE, ACCENT = "#6b7280", "#2a9d8f"
INK, FAINT = "#1f2933", "#e2e5ea"
PURPLE, RED = "#7b3294", "#b23a48"
PALETTE = (STUDENT, ACCENT, REFERENCE, PURPLE, RED)
MARKERS = "osD^vPX*"
LINES = ("-", "--", "-.", ":", (0, (5, 1)))
# An arm's names and its colour in every notebook. Two share orange, the
# student that read the teacher's text; they never stand in one figure.
ARMS = (
    (("teacher",), TEACHER),
    (("student_before",), REFERENCE),
    (("student_after",), STUDENT),
    (("sft_gold", "gold text"), "#8c6d1f"),
    (("sft_traces", "teacher text", "text alone"), STUDENT),
    (("logit_online", "logits, online"), ACCENT),
    (("logit_cached", "logits, cached"), PURPLE),
    (("logit_online_t2", "logits, T = 2"), RED),
    (("feature_text", "text + states"), "#56b4e9"),
    (("feature_relation", "text + relations"), "#3f7f3f"),
    (("feature_logit", "logits, T = 2, + relations"), "#cc79a7"),
    (("right",), ACCENT),
    (("wrong",), RED),
)
ARM_COLOURS = {name: colour for names, colour in ARMS for name in names}
STYLE: dict[str, Any] = {
    "font.size": 12,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": REFERENCE,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.titlesize": 13,
    "axes.titlelocation": "left",
    "axes.titlepad": 12,
    "axes.grid": True,
    "grid.color": FAINT,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "legend.frameon": False,
    "lines.linewidth": 2.2,
    "figure.facecolor": "white",
}
SIZE = (7.5, 3.8)  # inches


@contextlib.contextmanager
def figure(
    title: str,
    *,
    xlabel: str,
    ylabel: str,
    size: tuple[float, float] = SIZE,
    ax: Axes | None = None,
    save: Path | None = None,
) -> Iterator[Axes]:
    """Yield axes in the course's style; show them if they are a new figure.

    title: the finding; wrapped where it is too long. xlabel, ylabel: with
    their units. size: inches. ax: draw into these axes instead of a figure
    of their own, and leave showing to their owner. save: a PNG to write.
    """
    if ax is not None:
        ax.set(xlabel=xlabel, ylabel=ylabel, title=title)
        yield ax
        return
    with canvas(title, size=size, save=save) as (axes,):
        axes.set(xlabel=xlabel, ylabel=ylabel)
        yield axes


@contextlib.contextmanager
def canvas(
    title: str,
    *,
    size: tuple[float, float] = SIZE,
    columns: int = 1,
    save: Path | None = None,
) -> Iterator[list[Axes]]:
    """Yield `columns` panels side by side under one title, then show them.

    An error inside the block shows no figure.
    """
    with plt.rc_context(STYLE):
        drawn, grid = plt.subplots(
            1, columns, figsize=size, dpi=100, layout="constrained",
            squeeze=False,
        )  # fmt: skip
        try:
            headline(drawn, title)
            yield list(grid[0])
            if save is not None:
                drawn.savefig(save)
            plt.show()
        finally:
            plt.close(drawn)


def to_png(
    fill: Callable[[Figure], None], *, size: tuple[float, float] = SIZE
) -> bytes:
    """A figure as PNG bytes, made without pyplot: safe in any thread.

    fill: draws into the empty figure, in the course's style.
    """
    with plt.rc_context(STYLE):
        drawn = Figure(figsize=size, dpi=100, layout="constrained")
        fill(drawn)
        buffer = io.BytesIO()
        drawn.savefig(buffer, format="png")
    return buffer.getvalue()


def headline(drawn: Figure, title: str) -> None:
    """The finding over all panels, wrapped to the figure's width."""
    wrapped = textwrap.fill(title, int(drawn.get_figwidth() * 8.5))
    drawn.suptitle(wrapped, x=0.01, ha="left", fontsize=14, fontweight="bold")
    drawn.get_layout_engine().set(w_pad=0.12, h_pad=0.1)


def colour_of(name: str, *, place: int = 0) -> str:
    """The colour of an arm or a model; otherwise the place-th colour."""
    for known in (name, name.partition(",")[0]):
        if known in ARM_COLOURS:
            return ARM_COLOURS[known]
    for word, colour in (
        ("teacher", TEACHER),
        ("before", REFERENCE),
        ("student", STUDENT),
    ):
        if word in name.lower():
            return colour
    return PALETTE[place % len(PALETTE)]


def look(name: str, place: int) -> dict[str, Any]:
    """Colour, marker and line style of one of several lines, and its name."""
    return {
        "label": name,
        "color": colour_of(name, place=place),
        "marker": MARKERS[place % len(MARKERS)],
        "linestyle": LINES[place % len(LINES)],
    }


def shares_on(axis: Any) -> None:
    """Label an axis that goes from 0 to 1 in percent."""
    axis.set_major_formatter(PercentFormatter(1.0, decimals=0))


def log2_on(axes: Axes, places: Sequence[float]) -> None:
    """A logarithmic x axis with a tick, and a plain number, at each place."""
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
    axes.set_xticks(sorted(set(places)))
    axes.minorticks_off()


def array(values: Any) -> np.ndarray:
    """Any tensor, array or list of numbers as float64 on the CPU."""
    if hasattr(values, "detach"):
        values = values.detach().cpu().double().numpy()
    return np.asarray(values, dtype=np.float64)
