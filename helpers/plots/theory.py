"""The figures of notebook 01: distributions, divergences, gradients.

Every `draw_*` fills one pair of axes, so that a figure of the notebook and
the picture of a widget are the same drawing. Blue is the teacher, orange the
student; hatches and line styles repeat what the colours say.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, PercentFormatter

from helpers.plots.style import (
    ACCENT,
    INK,
    PALETTE,
    REFERENCE,
    STUDENT,
    TEACHER,
    canvas,
    headline,
    to_png,
)

Draw = Callable[[Axes], None]
LIMITS = (0.25, 0.5)  # of an axis of probabilities; above them it ends at 1
_LINES = ("-", "--", "-.", ":")


def show(
    title: str,
    draws: Sequence[Draw],
    *,
    size: tuple[float, float] = (7.5, 3.8),
    save: Path | None = None,
) -> None:
    """One figure, a panel for each of `draws`, in the course's style."""
    with canvas(title, size=size, save=save, columns=len(draws)) as panels:
        for draw, axes in zip(draws, panels, strict=True):
            draw(axes)


def as_png(
    title: str,
    draws: Sequence[Draw],
    *,
    size: tuple[float, float] = (7.6, 3.8),
) -> bytes:
    """The same figure as PNG bytes, for an Image widget."""

    def fill(drawn: Figure) -> None:
        headline(drawn, title)
        panels = drawn.subplots(1, len(draws), squeeze=False)[0]
        for draw, axes in zip(draws, panels, strict=True):
            draw(axes)

    return to_png(fill, size=size)


# --- figures of the notebook ------------------------------------------------


def next_token_plot(
    title: str,
    names: Sequence[str],
    plain: Any,
    soft: Any,
    student: Any | None = None,
    *,
    temperature: float,
    save: Path | None = None,
) -> None:
    """Next-token probabilities at T = 1 and softened; see the drawing."""
    draw = partial(
        draw_next_token, names=names, plain=plain, soft=soft,
        student=student, temperature=temperature,
    )  # fmt: skip
    show(title, [draw], save=save)


def two_peaks_plot(
    title: str,
    grid: Any,
    teacher: Any,
    panels: Sequence[Mapping[str, Any]],
    *,
    save: Path | None = None,
) -> None:
    """The teacher's two peaks, and in each panel students that fitted it."""
    draws = [
        partial(draw_two_peaks, grid=grid, teacher=teacher, students=students)
        for students in panels
    ]
    size = (7.5, 3.8) if len(draws) == 1 else (10.0, 3.9)
    show(title, draws, size=size, save=save)


def gradient_plot(
    title: str,
    temperatures: Any,
    plain: Any,
    scaled: Any,
    *,
    save: Path | None = None,
) -> None:
    """Size of the gradient against the temperature; see the drawing."""
    draw = partial(
        draw_gradient, temperatures=temperatures, plain=plain, scaled=scaled
    )
    show(title, [draw], save=save)


def width_plot(
    title: str,
    widths: Sequence[int],
    shares: Mapping[str, Sequence[float]],
    *,
    marks: Mapping[str, int],
    save: Path | None = None,
) -> None:
    """Agreement with the teacher against the student's width.

    shares: by label, a share from 0 to 1 for each width. marks: widths to
    mark with a dotted line, by name.
    """
    draw = partial(draw_width, widths=widths, shares=shares, marks=marks)
    show(title, [draw], save=save)


# --- drawings ---------------------------------------------------------------


def draw_next_token(
    axes: Axes,
    *,
    names: Sequence[str],
    plain: Any,
    soft: Any,
    student: Any | None,
    temperature: float,
) -> None:
    """Bars a token: the teacher at T = 1 behind, the softened ones before.

    plain, soft, student: probabilities, one a name; student may be missing.
    """
    places = np.arange(len(names))
    half = 0.0 if student is None else 0.19
    width = 0.5 if student is None else 0.36
    axes.bar(places, _array(plain), width=0.86, color=REFERENCE, alpha=0.35,
             label="teacher, T = 1")  # fmt: skip
    axes.bar(places - half, _array(soft), width=width, color=TEACHER,
             label=f"teacher, T = {temperature:g}")  # fmt: skip
    if student is not None:
        axes.bar(places + half, _array(student), width=width, color=STUDENT,
                 hatch="//", edgecolor="white", linewidth=0,
                 label=f"student, T = {temperature:g}")  # fmt: skip
    axes.set_xticks(places, names)
    shown = [plain, soft] if student is None else [plain, soft, student]
    highest = max(_array(values).max() for values in shown)
    top = next((limit for limit in LIMITS if limit >= 1.2 * highest), 1.0)
    axes.set(xlabel="next token", ylabel="probability", ylim=(0, top))
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    axes.grid(visible=False, axis="x")
    axes.legend(loc="upper right")


def draw_two_peaks(
    axes: Axes, *, grid: Any, teacher: Any, students: Mapping[str, Any]
) -> None:
    """Densities over the grid: the teacher filled, the students as lines."""
    places = _array(grid)
    step = places[1] - places[0]
    density = _array(teacher) / step
    axes.fill_between(places, density, color=TEACHER, alpha=0.25)
    axes.plot(places, density, color=TEACHER, lw=1.4, label="teacher")
    for number, (name, probabilities) in enumerate(students.items()):
        axes.plot(
            places, _array(probabilities) / step, lw=2.6, label=name,
            color=PALETTE[number % len(PALETTE)],
            linestyle=_LINES[number % len(_LINES)],
        )  # fmt: skip
    axes.set(xlabel="what is said (x)", ylabel="probability density")
    axes.set_ylim(0, 0.95)
    axes.set_xlim(places[0], places[-1])
    axes.legend(loc="upper right")
    axes.grid(visible=False, axis="x")


def draw_gradient(
    axes: Axes,
    *,
    temperatures: Any,
    plain: Any,
    scaled: Any,
    mark: float | None = None,
) -> None:
    """Norm of the gradient over T, both axes logarithmic.

    plain: of the divergence alone; scaled: of T * T times it. mark: a
    temperature at which both curves get a point.
    """
    x = _array(temperatures)
    lines = (
        ("times T²", _array(scaled), ACCENT, "-"),
        ("without T²", _array(plain), REFERENCE, "--"),
    )
    for label, y, colour, style in lines:
        axes.plot(x, y, style, color=colour, label=label)
        if mark is not None:
            height = np.exp(np.interp(np.log(mark), np.log(x), np.log(y)))
            axes.plot(mark, height, "o", ms=10, color=colour, mec=INK)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.xaxis.set_major_formatter(FuncFormatter(lambda t, _: f"{t:g}"))
    axes.set(xlabel="temperature T (log scale)",
             ylabel="norm of the gradient (log)")  # fmt: skip
    axes.minorticks_off()
    axes.legend(loc="lower left")


def draw_width(
    axes: Axes,
    *,
    widths: Sequence[int],
    shares: Mapping[str, Sequence[float]],
    marks: Mapping[str, int],
) -> None:
    """Shares of agreement over the width, on a logarithmic axis."""
    for number, (name, values) in enumerate(shares.items()):
        axes.plot(
            widths, values, marker="os^D"[number % 4], ms=8, label=name,
            color=PALETTE[number % len(PALETTE)],
            linestyle=_LINES[number % len(_LINES)],
        )  # fmt: skip
    for name, width in marks.items():
        axes.axvline(width, color=REFERENCE, ls=":", lw=1.6)
        axes.text(width * 0.93, 0.03, name, rotation=90, ha="right",
                  va="bottom", color=REFERENCE)  # fmt: skip
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    axes.set_ylim(0, 1.05)
    axes.set(xlabel="width of the student (log scale)",
             ylabel="same likeliest token")  # fmt: skip
    axes.minorticks_off()
    axes.legend(loc="lower right", bbox_to_anchor=(0.86, 0.0))


def _array(values: Any) -> np.ndarray:
    if hasattr(values, "detach"):
        values = values.detach().cpu().double().numpy()
    return np.asarray(values, dtype=np.float64)
