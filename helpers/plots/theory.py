"""The figures of notebook 01 and of its widgets.

Hatches and line styles repeat what the colours say.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes

import helpers.plots.style as style

_TOPS = (0.25, 0.5)  # of the axis of probabilities; it moves in steps, up to 1


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
    xlabel, ylabel = "next token", "probability"
    with style.figure(title, xlabel=xlabel, ylabel=ylabel, ax=ax) as axes:
        axes.bar(places, style.array(plain), width=0.86, alpha=0.35,
                 color=style.REFERENCE, label="teacher, T = 1")  # fmt: skip
        axes.bar(places - half, style.array(soft), width=width,
                 color=style.TEACHER, label=f"teacher, T = {temperature:g}"
                 )  # fmt: skip
        if student is not None:
            axes.bar(places + half, style.array(student), width=width,
                     color=style.STUDENT, hatch="//", edgecolor="white",
                     linewidth=0, label=f"student, T = {temperature:g}"
                     )  # fmt: skip
        axes.set_xticks(places, names, parse_math=False)
        highest = max(bar.get_height() for bar in axes.patches)
        fitting = [top for top in _TOPS if top >= 1.2 * highest]
        style.share_axis(axes, top=min(fitting, default=1))
        axes.legend(loc="upper right")


def two_peaks_plot(
    grid: Any, teacher: Any, students: Mapping[str, Any], *, ax: Axes
) -> None:
    """Densities over the grid: the teacher filled, the students as lines.

    grid, teacher, students: equidistant places and the mass on each.
    """
    places = style.array(grid)
    step = places[1] - places[0]
    xlabel, ylabel = "what is said (x)", "probability density"
    with style.figure("", xlabel=xlabel, ylabel=ylabel, ax=ax) as axes:
        density = style.array(teacher) / step
        axes.fill_between(places, density, color=style.TEACHER, alpha=0.25)
        axes.plot(places, density, color=style.TEACHER, lw=1.4,
                  label="teacher")  # fmt: skip
        for place, (name, mass) in enumerate(students.items()):
            look = style.look(name, place) | {"marker": None}
            axes.plot(places, style.array(mass) / step, lw=2.6, **look)
        axes.set(xlim=(places[0], places[-1]), ylim=(0, 0.95))
        axes.legend(loc="upper right")


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
    xlabel, ylabel = "temperature T (log scale)", "norm of the gradient (log)"
    x = style.array(temperatures)
    with style.figure(title, xlabel=xlabel, ylabel=ylabel, ax=ax) as axes:
        for label, norms, colour, line in (
            ("times T²", scaled, style.ACCENT, "-"),
            ("without T²", plain, style.REFERENCE, "--"),
        ):
            y = style.array(norms)
            axes.loglog(x, y, line, color=colour, label=label)
            if mark is not None:
                height = np.exp(np.interp(np.log(mark), np.log(x), np.log(y)))
                axes.plot(mark, height, "o", ms=10, color=colour,
                          mec=style.INK)  # fmt: skip
        axes.xaxis.set_major_formatter("{x:g}")
        axes.minorticks_off()
        axes.legend(loc="lower left")
