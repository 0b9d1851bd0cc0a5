"""The figures of notebook 06: layers against layers, sizes of states.

Numbers stand in the cells and names beside the lines, so that nothing is
said by colour alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from helpers.features import Pairs
from helpers.plots.style import (
    PALETTE,
    STUDENT,
    TEACHER,
    canvas,
    figure,
    headline,
    to_png,
)

_MARKERS = "osD^v"
_LINES = ("-", "--", "-.", ":")


def layer_grids(
    grids: Mapping[str, Any],
    title: str,
    *,
    pairs: Pairs = (),
    save: Path | None = None,
) -> None:
    """Heat maps side by side, one a name, of `helpers.features.cka_grid`.

    Rows are the student's layers, columns the teacher's; `pairs` are framed.
    """
    count = len(grids)
    size = (1.0 + 4.4 * count, 4.0)
    with canvas(title, size=size, save=save, columns=count) as axes:
        for place, (name, grid) in zip(axes, grids.items(), strict=True):
            draw_grid(place, grid, pairs)
            place.set_title(name, fontsize=13)


def layer_map_png(grid: Any, pairs: Pairs, title: str) -> bytes:
    """One heat map with framed pairs as PNG bytes, for the widget."""

    def fill(drawn: Figure) -> None:
        draw_grid(drawn.subplots(), grid, pairs)
        headline(drawn, title)

    return to_png(fill, size=(7.0, 4.4))


def draw_grid(axes: Axes, grid: Any, pairs: Pairs = ()) -> None:
    """CKA in colour and in numbers; a frame around each pair of a map."""
    values = grid.tolist()
    axes.imshow(values, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    for row, line in enumerate(values):
        for column, value in enumerate(line):
            axes.text(
                column, row, f"{value:.2f}", ha="center", va="center",
                color="white" if value > 0.6 else "black", fontsize=12,
            )  # fmt: skip
    for student, teacher in pairs:
        axes.add_patch(
            Rectangle(
                (teacher - 0.46, student - 0.44), 0.92, 0.88, fill=False,
                edgecolor=STUDENT, linewidth=3.5,
            )
        )  # fmt: skip
    axes.set_xticks(range(len(values[0])), _names(len(values[0])))
    axes.set_yticks(range(len(values)), _names(len(values)))
    axes.set(xlabel="teacher's layer", ylabel="student's layer")
    axes.grid(visible=False)


def norms_by_layer(
    norms: Mapping[str, Sequence[float]],
    title: str,
    *,
    save: Path | None = None,
) -> None:
    """Mean length of the states at every layer; a line a model."""
    with figure(
        title, xlabel="layer (0 = embedding)",
        ylabel="mean length of a state", save=save,
    ) as axes:  # fmt: skip
        for place, (name, values) in enumerate(norms.items()):
            axes.plot(
                range(len(values)), list(values), label=name, ms=8,
                marker=_MARKERS[place % 5], linestyle=_LINES[place % 4],
                color=(TEACHER, STUDENT)[place % 2],
            )  # fmt: skip
        axes.set_ylim(bottom=0)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.legend(loc="best")


def curves(
    runs: Mapping[str, Sequence[tuple[float, float]]],
    title: str,
    *,
    xlabel: str,
    ylabel: str,
    save: Path | None = None,
) -> None:
    """One line per name through its (x, y) points, y logarithmic."""
    with figure(title, xlabel=xlabel, ylabel=ylabel, save=save) as axes:
        for place, (name, points) in enumerate(runs.items()):
            axes.plot(
                [x for x, _ in points], [y for _, y in points], label=name,
                marker=_MARKERS[place % 5], linestyle=_LINES[place % 4],
                color=PALETTE[place % len(PALETTE)], ms=6,
            )  # fmt: skip
        axes.set_yscale("log")
        axes.legend(loc="best")


def _names(count: int) -> list[str]:
    """0, 1, ..., and which of them is the embedding and which the end."""
    return ["0\nembed.", *map(str, range(1, count - 1)), f"{count - 1}\nlast"]
