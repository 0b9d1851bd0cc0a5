"""The figures of notebook 10: where memory goes, and how right the plan is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from matplotlib.axes import Axes

from helpers.plots.style import (
    ACCENT,
    FAINT,
    INK,
    PURPLE,
    RED,
    REFERENCE,
    STUDENT,
    TEACHER,
    figure,
)

if TYPE_CHECKING:
    from helpers.rebuild.memory_points import Measured
    from helpers.scale.planner import Plan

GIB = 2**30
PARTS = (  # label, fields of Plan, colour
    ("weights", ("weights",), REFERENCE),
    ("second model", ("teacher",), TEACHER),
    ("trained, with Adam", ("adapters", "gradients", "optimizer"), STUDENT),
    ("activations", ("activations",), ACCENT),
    ("logits", ("logits",), PURPLE),
    ("keys and values", ("cache",), RED),
)
CARD_SIZES = (8, 16, 24, 48, 80)
METHODS = {
    "sft": ("o", STUDENT, "SFT"),
    "logit": ("s", TEACHER, "logits"),
    "logit_chunked": ("D", PURPLE, "logits, chunked"),
    "generate": ("^", ACCENT, "generation"),
}


def plans_chart(
    plans: Mapping[str, Plan], title: str = "", *, ax: Axes | None = None
) -> None:
    """Stacked horizontal bars in GiB, one a plan, with the sizes of cards."""
    with figure(
        title, xlabel="GiB at the peak, without the libraries themselves",
        ylabel="", size=(8.2, 2.7 + 0.55 * len(plans)), ax=ax,
    ) as axes:  # fmt: skip
        labelled: set[str] = set()
        for name, plan in plans.items():
            left = 0.0
            for label, fields, colour in PARTS:
                size = sum(getattr(plan, field) for field in fields) / GIB
                if size:
                    shown = None if label in labelled else label
                    axes.barh(name, size, left=left, color=colour, label=shown)
                    labelled.add(label)
                left += size
            axes.text(left, name, f" {left:.1f} GiB", va="center", color=INK)
        _draw_cards(axes, max(plan.total for plan in plans.values()) / GIB)
        axes.invert_yaxis()
        axes.figure.legend(loc="outside lower left", ncols=3)


def measured_chart(points: Sequence[Measured], title: str) -> None:
    """Expected against measured peak, on logarithmic axes, with +-15%."""
    peaks = [point.peak / GIB for point in points]
    ends = [min(peaks) / 1.5, max(peaks) * 1.5]
    with figure(
        title, xlabel="measured peak (GiB, log scale)",
        ylabel="expected (GiB, log scale)", size=(7.5, 4.6),
    ) as axes:  # fmt: skip
        axes.set(xscale="log", yscale="log", xlim=ends, ylim=ends)
        low, high = ([end * factor for end in ends] for factor in (0.85, 1.15))
        axes.fill_between(ends, low, high, color=FAINT, label="within 15%")
        axes.plot(ends, ends, color=REFERENCE, lw=1.2)
        for method, (marker, colour, label) in METHODS.items():
            shown = [p for p in points if p.point.method == method]
            axes.plot(
                [p.peak / GIB for p in shown],
                [p.expected / GIB for p in shown],
                marker, color=colour, ms=8, alpha=0.85,
                label=f"{label} ({len(shown)})",
            )  # fmt: skip
        ticks = [n for n in (0.5, 1, 2, 4, 8, 16) if ends[0] < n < ends[1]]
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_ticks(ticks, [f"{n:g}" for n in ticks])
            axis.set_ticks([], minor=True)
        axes.legend(loc="upper left")


def _draw_cards(axes: Axes, largest: float) -> None:
    """A dashed line at each size of card, up to the first that holds all."""
    bigger = [size for size in CARD_SIZES if size >= largest]
    shown = [size for size in CARD_SIZES if size < largest] + bigger[:1]
    end = 1.14 * max(largest, *shown)
    free = 0.0  # where the next label may begin
    for size in shown:
        axes.axvline(size, color=INK, ls="--", lw=1.2)
        if size < free:
            continue
        free = size + 0.11 * end
        axes.annotate(
            f"{size} GB", (size, 1.0), xycoords=("data", "axes fraction"),
            ha="center", va="bottom", fontsize=11,
        )  # fmt: skip
    axes.set_xlim(0, end)
