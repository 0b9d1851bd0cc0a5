"""The look that all figures of the course share."""

from __future__ import annotations

import contextlib
import io
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

TEACHER, STUDENT = "#1f4e8c", "#d9822b"
REFERENCE, ACCENT = "#6b7280", "#2a9d8f"
INK, FAINT = "#1f2933", "#e2e5ea"
PALETTE = (STUDENT, ACCENT, REFERENCE, "#7b3294", "#b23a48")
STYLE: dict[str, Any] = {
    "font.size": 12,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": REFERENCE,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.titlesize": 14,
    "axes.titleweight": "bold",
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


@contextlib.contextmanager
def figure(
    title: str,
    *,
    xlabel: str,
    ylabel: str,
    size: tuple[float, float] = (7.5, 3.8),
    save: Path | None = None,
) -> Iterator[Axes]:
    """Yield one pair of axes in the course's style, then show the figure.

    title: the finding; wrapped where it is too long. xlabel, ylabel: with
    their units. size: inches. An error inside the block shows no figure.
    """
    with canvas(title, size=size, save=save, columns=1) as (axes,):
        axes.set(xlabel=xlabel, ylabel=ylabel)
        yield axes


def to_png(
    fill: Callable[[Figure], None], *, size: tuple[float, float]
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
    """The colour of a model by its name; otherwise the place-th colour."""
    if "teacher" in name.lower():
        return TEACHER
    if "before" in name.lower():
        return REFERENCE
    if "student" in name.lower():
        return STUDENT
    return PALETTE[place % len(PALETTE)]


@contextlib.contextmanager
def canvas(
    title: str,
    *,
    size: tuple[float, float],
    save: Path | None,
    columns: int,
) -> Iterator[list[Axes]]:
    """Yield `columns` panels side by side under one title, then show them."""
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
