"""The figures of notebook 06: layers against layers, sizes of states."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from matplotlib.ticker import StrMethodFormatter

import helpers.plots.style as style

Pairs = Sequence[tuple[int, int]]  # of helpers.features


def layer_grids(
    grids: Mapping[str, Any], title: str, *, pairs: Pairs = ()
) -> None:
    """Heat maps of `helpers.features.cka_grid` side by side, one a name."""
    size = (1.0 + 4.4 * len(grids), 4.0)
    with style.canvas(title, size=size, columns=len(grids)) as panels:
        for ax, (name, grid) in zip(panels, grids.items(), strict=True):
            layer_grid(grid, name, pairs=pairs, ax=ax)


def layer_grid(
    grid: Any, title: str = "", *, pairs: Pairs = (), ax: Axes | None = None
) -> None:
    """CKA in colour and in numbers; a frame around each pair of a map.

    Rows are the student's layers, columns the teacher's.
    """
    values = style.array(grid)
    xlabel, ylabel = "teacher's layer (0 = embedding)", "student's layer"
    with style.figure(title, xlabel=xlabel, ylabel=ylabel, ax=ax) as axes:
        axes.imshow(values, cmap="Blues", vmin=0, vmax=1, aspect="auto")
        for (row, column), value in np.ndenumerate(values):
            axes.text(
                column, row, f"{value:.2f}", ha="center", va="center",
                color="white" if value > 0.6 else "black", fontsize=12,
            )  # fmt: skip
        for student, teacher in pairs:
            corner = teacher - 0.46, student - 0.44
            axes.add_patch(Rectangle(corner, 0.92, 0.88, fill=False, lw=3.5,
                                     ec=style.STUDENT))  # fmt: skip
        axes.locator_params(integer=True)
        axes.grid(visible=False)


def norms_by_layer(norms: Mapping[str, Sequence[float]], title: str) -> None:
    """Mean length of the states at every layer; a line a model."""
    xlabel, ylabel = "layer (0 = embedding)", "mean length of a state"
    with style.figure(title, xlabel=xlabel, ylabel=ylabel) as axes:
        for place, (name, values) in enumerate(norms.items()):
            axes.plot(list(values), ms=8, **style.look(name, place))
        axes.set_ylim(bottom=0)
        axes.locator_params(axis="x", integer=True)
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
    with style.figure(title, xlabel=xlabel, ylabel=ylabel, save=save) as axes:
        for place, (name, points) in enumerate(runs.items()):
            x, y = zip(*points, strict=True)
            axes.semilogy(x, y, ms=6, **style.look(name, place))
        plain = StrMethodFormatter("{x:g}")  # 3, not 3 x 10^0
        axes.yaxis.set_major_formatter(plain)
        low, high = axes.get_ylim()
        if high < 10 * low:  # no power of ten, or one: name more than that
            axes.yaxis.set_minor_formatter(plain)
        else:
            axes.minorticks_off()
        axes.locator_params(axis="x", integer=True)
        axes.xaxis.set_major_formatter("{x:,g}")
        axes.legend(loc="best")
