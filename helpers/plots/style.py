"""The look that all figures of the course share, and each arm's one colour."""

import contextlib
import io
import textwrap
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

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
    (("student_before", "student, untouched"), REFERENCE),
    (("student_after",), STUDENT),
    (("gold text", "text"), "#8c6d1f"),
    (("teacher text", "text alone"), STUDENT),
    (("logits",), ACCENT),
    (("cache of 16", "logits, top 16"), PURPLE),
    (("logits, T = 2",), RED),
    (("text + states",), "#56b4e9"),
    (("text + relations",), "#3f7f3f"),
    (("states",), "#0f7b8c"),
    (("logits + relations",), "#cc79a7"),
    (("logits + states",), "#c2185b"),
    (("half, no repair",), REFERENCE),
    (("right",), ACCENT),
    (("wrong",), RED),
)
ARM_COLOURS = {name: colour for names, colour in ARMS for name in names}
ROLES = {"teacher": TEACHER, "before": REFERENCE, "student": STUDENT}
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
    "axes.grid.axis": "y",
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
    their units; "" for a y axis of names, which gets no grid lines. size:
    inches. ax: draw into these axes instead of a figure of their own, and
    leave showing to their owner. save: a PNG to write.
    """
    if ax is not None:
        ax.set(xlabel=xlabel, ylabel=ylabel, title=title)
        ax.grid(visible=bool(ylabel), axis="y")
        ax.grid(visible=not ylabel, axis="x")
        yield ax
        return
    with (
        canvas(title, size=size, save=save) as (axes,),
        figure("", xlabel=xlabel, ylabel=ylabel, ax=axes),
    ):
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

    save: a PNG to write. An error inside the block shows no figure.
    """
    with plt.rc_context(STYLE):
        drawn = plt.figure(figsize=size, dpi=100, layout="constrained")
        try:
            headline(drawn, title)
            yield list(drawn.subplots(1, columns, squeeze=False)[0])
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
    arm = name if name in ARM_COLOURS else name.partition(",")[0]
    if arm in ARM_COLOURS:
        return ARM_COLOURS[arm]
    roles = [colour for role, colour in ROLES.items() if role in name.lower()]
    return [*roles, PALETTE[place % len(PALETTE)]][0]


def look(name: str, place: int) -> dict[str, Any]:
    """Colour, marker and line style of one of several lines, and its name."""
    return {
        "label": name,
        "color": colour_of(name, place=place),
        "marker": MARKERS[place % len(MARKERS)],
        "linestyle": LINES[place % len(LINES)],
    }


def share_axis(axes: Axes, top: float = 1.02) -> None:
    """Label the y axis in percent, from 0 to a little above 1."""
    axes.set_ylim(0, top)
    axes.yaxis.set_major_formatter("{x:.0%}")


def log2_axis(axes: Axes, places: Sequence[float]) -> None:
    """A logarithmic x axis with a tick, and a plain number, at each place."""
    axes.set_xscale("log", base=2)
    axes.set_xticks(sorted(set(places)))
    axes.xaxis.set_major_formatter("{x:,g}")
    axes.minorticks_off()


def array(values: Any) -> np.ndarray:
    """Any tensor, array or list of numbers as float64 on the CPU."""
    return torch.as_tensor(values, dtype=torch.float64).detach().cpu().numpy()
