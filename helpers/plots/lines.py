"""Lines through measured points: losses, shares and norms, all notebooks."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.ticker import StrMethodFormatter

import helpers.plots.style as style

MARKED = 20  # points of a line that get a marker, about


def line_chart(
    series: Mapping[str, Sequence[tuple[float, float]]],
    title: str,
    *,
    xlabel: str,
    ylabel: str,
    y: str = "log",
    log2: bool = False,
    marks: Mapping[str, float] | None = None,
    save: Path | None = None,
) -> None:
    """One line a name through its (x, y) points.

    y: "log", "zero" (linear, from 0) or "share" (percent, from 0 to 1).
    log2: x is a size that doubles, with a tick at each. marks: dotted
    vertical lines by name, such as the ends of epochs.
    """
    marks = marks or {}
    with style.figure(title, xlabel=xlabel, ylabel=ylabel, save=save) as axes:
        for place, (name, points) in enumerate(series.items()):
            every = max(1, len(points) // MARKED)
            over = len(series) - 1 - place  # lines to come; none hides one
            axes.plot(*zip(*points, strict=True), lw=1.8 + 0.8 * over,
                      ms=6 + 2 * over, markevery=every,
                      **style.look(name, place))  # fmt: skip
        for name, x in marks.items():
            axes.axvline(x, color=style.REFERENCE, ls=":", lw=1.6)
            axes.annotate(
                name, (x, 0.03), (-4, 0), rotation=90, ha="right", va="bottom",
                xycoords=axes.get_xaxis_transform(), color=style.REFERENCE,
                textcoords="offset points",
            )  # fmt: skip
        if log2:
            sizes = [x for points in series.values() for x, _ in points]
            style.log2_axis(axes, [*sizes, *marks.values()])
        else:
            axes.locator_params(axis="x", integer=True)
            axes.xaxis.set_major_formatter("{x:,g}")
        if y == "share":
            style.share_axis(axes, top=1.05)
        elif y == "zero":
            axes.set_ylim(bottom=0)
        else:
            log_axis(axes)
        if len(series) > 1:
            axes.legend(loc="best")


def log_axis(axes: Axes) -> None:
    """A logarithmic y axis whose ticks say 3, not 3 x 10^0."""
    axes.set_yscale("log")
    plain = StrMethodFormatter("{x:g}")
    axes.yaxis.set_major_formatter(plain)
    low, high = axes.get_ylim()
    if high < 10 * low:  # no power of ten, or one: name more than that
        axes.yaxis.set_minor_formatter(plain)
    else:
        axes.minorticks_off()
