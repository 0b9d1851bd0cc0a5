"""The figures of notebook 01: distributions, divergences, gradients.

The same functions fill the pictures of its widgets. Blue is the teacher,
orange the student; hatches and line styles repeat what the colours say.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter

from helpers.plots.style import (
    ACCENT,
    INK,
    REFERENCE,
    STUDENT,
    TEACHER,
    array,
    figure,
    log2_on,
    look,
    shares_on,
)

_LIMITS = (0.25, 0.5)  # of an axis of probabilities; above them it ends at 1


def next_token_plot(
    names: Sequence[str],
    plain: Any,
    soft: Any,
    student: Any | None = None,
    *,
    temperature: float,
    title: str = "",
    ax: Axes | None = None,
) -> None:
    """Bars a token: the teacher at T = 1 behind, the softened ones before.

    plain, soft, student: probabilities, one a name; student may be missing.
    """
    places = np.arange(len(names))
    half, width = (0.0, 0.5) if student is None else (0.19, 0.36)
    with figure(
        title, xlabel="next token", ylabel="probability", ax=ax
    ) as axes:
        axes.bar(places, array(plain), width=0.86, color=REFERENCE,
                 alpha=0.35, label="teacher, T = 1")  # fmt: skip
        axes.bar(places - half, array(soft), width=width, color=TEACHER,
                 label=f"teacher, T = {temperature:g}")  # fmt: skip
        if student is not None:
            axes.bar(places + half, array(student), width=width,
                     color=STUDENT, hatch="//", edgecolor="white",
                     linewidth=0, label=f"student, T = {temperature:g}"
                     )  # fmt: skip
        axes.set_xticks(places, names)
        highest = max(bar.get_height() for bar in axes.patches)
        top = next((top for top in _LIMITS if top >= 1.2 * highest), 1.0)
        axes.set_ylim(0, top)
        shares_on(axes.yaxis)
        axes.grid(visible=False, axis="x")
        axes.legend(loc="upper right")


def two_peaks_plot(
    grid: Any,
    teacher: Any,
    students: Mapping[str, Any],
    *,
    title: str = "",
    ax: Axes | None = None,
) -> None:
    """Densities over the grid: the teacher filled, the students as lines.

    grid, teacher, students: equidistant places and the mass on each.
    """
    places = array(grid)
    step = places[1] - places[0]
    with figure(
        title, xlabel="what is said (x)", ylabel="probability density", ax=ax
    ) as axes:
        density = array(teacher) / step
        axes.fill_between(places, density, color=TEACHER, alpha=0.25)
        axes.plot(places, density, color=TEACHER, lw=1.4, label="teacher")
        for place, (name, mass) in enumerate(students.items()):
            style = look(name, place) | {"marker": None}
            axes.plot(places, array(mass) / step, lw=2.6, **style)
        axes.set_ylim(0, 0.95)
        axes.set_xlim(places[0], places[-1])
        axes.legend(loc="upper right")
        axes.grid(visible=False, axis="x")


def gradient_plot(
    temperatures: Any,
    plain: Any,
    scaled: Any,
    *,
    mark: float | None = None,
    title: str = "",
    ax: Axes | None = None,
) -> None:
    """Norm of the gradient over T, both axes logarithmic.

    plain: of the divergence alone; scaled: of T * T times it. mark: a
    temperature at which both curves get a point.
    """
    x = array(temperatures)
    with figure(
        title, xlabel="temperature T (log scale)",
        ylabel="norm of the gradient (log)", ax=ax,
    ) as axes:  # fmt: skip
        for label, y, colour, style in (
            ("times T²", array(scaled), ACCENT, "-"),
            ("without T²", array(plain), REFERENCE, "--"),
        ):
            axes.plot(x, y, style, color=colour, label=label)
            if mark is not None:
                height = np.exp(np.interp(np.log(mark), np.log(x), np.log(y)))
                axes.plot(mark, height, "o", ms=10, color=colour, mec=INK)
        axes.set(xscale="log", yscale="log")
        axes.xaxis.set_major_formatter(FuncFormatter(lambda t, _: f"{t:g}"))
        axes.minorticks_off()
        axes.legend(loc="lower left")


def width_plot(
    widths: Sequence[int],
    shares: Mapping[str, Sequence[float]],
    *,
    marks: Mapping[str, int],
    title: str,
) -> None:
    """Agreement with the teacher against the student's width.

    shares: by label, a share from 0 to 1 for each width. marks: widths to
    mark with a dotted line, by name.
    """
    xlabel, ylabel = "width of the student (log scale)", "same likeliest token"
    with figure(title, xlabel=xlabel, ylabel=ylabel) as axes:
        for place, (name, values) in enumerate(shares.items()):
            axes.plot(widths, values, ms=8, **look(name, place))
        for name, width in marks.items():
            axes.axvline(width, color=REFERENCE, ls=":", lw=1.6)
            axes.text(width * 0.93, 0.03, name, rotation=90, ha="right",
                      va="bottom", color=REFERENCE)  # fmt: skip
        log2_on(axes, [*widths, *marks.values()])
        axes.set_ylim(0, 1.05)
        shares_on(axes.yaxis)
        axes.legend(loc="lower right", bbox_to_anchor=(0.86, 0.0))
