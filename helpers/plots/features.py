"""The figures of notebook 06: layers against layers."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

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
