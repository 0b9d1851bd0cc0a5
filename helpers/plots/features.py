"""The figures of notebook 06: layers against layers, sizes of states."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from helpers.plots.style import STUDENT, canvas, figure, look

Pairs = Sequence[tuple[int, int]]  # of helpers.features


def layer_grids(
    grids: Mapping[str, Any], title: str, *, pairs: Pairs = ()
) -> None:
    """Heat maps side by side, one a name, of `helpers.features.cka_grid`."""
    size = (1.0 + 4.4 * len(grids), 4.0)
    with canvas(title, size=size, columns=len(grids)) as panels:
        for ax, (name, grid) in zip(panels, grids.items(), strict=True):
            layer_grid(grid, name, pairs=pairs, ax=ax)


def layer_grid(
    grid: Any, title: str = "", *, pairs: Pairs = (), ax: Axes | None = None
) -> None:
    """CKA in colour and in numbers; a frame around each pair of a map.

    Rows are the student's layers, columns the teacher's.
    """
    values = grid.tolist()
    with figure(
        title, xlabel="teacher's layer", ylabel="student's layer", ax=ax
    ) as axes:
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
        axes.grid(visible=False)


def norms_by_layer(norms: Mapping[str, Sequence[float]], title: str) -> None:
    """Mean length of the states at every layer; a line a model."""
    xlabel, ylabel = "layer (0 = embedding)", "mean length of a state"
    with figure(title, xlabel=xlabel, ylabel=ylabel) as axes:
        for place, (name, values) in enumerate(norms.items()):
            axes.plot(list(values), ms=8, **look(name, place))
        axes.set_ylim(bottom=0)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.legend(loc="best")


def curves(
    runs: Mapping[str, Sequence[tuple[float, float]]],
    title: str,
    *,
    xlabel: str,
    ylabel: str,
) -> None:
    """One line per name through its (x, y) points, y logarithmic."""
    with figure(title, xlabel=xlabel, ylabel=ylabel) as axes:
        for place, (name, points) in enumerate(runs.items()):
            x, y = zip(*points, strict=True)
            axes.plot(x, y, ms=6, **look(name, place))
        axes.set_yscale("log")
        axes.legend(loc="best")


def _names(count: int) -> list[str]:
    """0, 1, ..., and which of them is the embedding and which the end."""
    return ["0\nembed.", *map(str, range(1, count - 1)), f"{count - 1}\nlast"]
