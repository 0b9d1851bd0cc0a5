"""The figures of notebook 10: where memory goes, and how right the plan is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from IPython.display import Image
from matplotlib.figure import Figure

from helpers.plots.style import (
    ACCENT,
    FAINT,
    INK,
    PALETTE,
    REFERENCE,
    STUDENT,
    TEACHER,
    figure,
    headline,
    to_png,
)
from helpers.rebuild.memory_points import Measured
from helpers.scale.planner import GIB, Plan

PARTS = (  # label, fields of Plan, colour
    ("weights", ("weights",), REFERENCE),
    ("second model", ("teacher",), TEACHER),
    ("trained, with Adam", ("adapters", "gradients", "optimizer"), STUDENT),
    ("activations", ("activations",), ACCENT),
    ("logits", ("logits",), PALETTE[3]),
    ("keys and values", ("cache",), PALETTE[4]),
)
CARD_SIZES = (8, 16, 24, 48, 80)
METHODS = {
    "sft": ("o", STUDENT, "SFT"),
    "logit": ("s", TEACHER, "logits"),
    "logit_chunked": ("D", PALETTE[3], "logits, chunked"),
    "generate": ("^", ACCENT, "generation"),
}


def parts_of(plan: Plan) -> list[tuple[str, float, str]]:
    """(label, GiB, colour) of the parts that are there at all."""
    found = [
        (label, sum(getattr(plan, name) for name in names) / GIB, colour)
        for label, names, colour in PARTS
    ]
    return [part for part in found if part[1] > 0]


def plans_png(plans: dict[str, Plan], title: str) -> bytes:
    """Stacked horizontal bars in GiB, one a plan, with the sizes of cards."""

    def fill(drawn: Figure) -> None:
        axes = drawn.subplots()
        seen: set[str] = set()
        for name, plan in plans.items():
            left = 0.0
            for label, size, colour in parts_of(plan):
                shown = label if label not in seen else None
                axes.barh(name, size, left=left, color=colour, label=shown)
                seen.add(label)
                left += size
            axes.text(left, name, f" {left:.1f} GiB", va="center", color=INK)
        draw_cards(axes, max(plan.total for plan in plans.values()) / GIB)
        axes.invert_yaxis()
        axes.set_xlabel("GiB at the peak, without the libraries themselves")
        drawn.legend(loc="outside lower left", ncols=3)
        headline(drawn, title)

    return to_png(fill, size=(8.2, 2.7 + 0.55 * len(plans)))


def draw_cards(axes: Any, largest: float) -> None:
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


def plans_chart(plans: dict[str, Plan], title: str) -> Image:
    """`plans_png` as the value of a cell."""
    return Image(plans_png(plans, title), width=820)


def measured_chart(points: Sequence[Measured], title: str) -> None:
    """Expected against measured peak, on logarithmic axes, with +-15%."""
    peaks = [point.peak / GIB for point in points]
    ends = [min(peaks) / 1.5, max(peaks) * 1.5]
    with figure(
        title,
        xlabel="measured peak (GiB, log scale)",
        ylabel="expected (GiB, log scale)",
        size=(7.5, 4.6),
    ) as axes:
        axes.set(xscale="log", yscale="log", xlim=ends, ylim=ends)
        low, high = ([end * factor for end in ends] for factor in (0.85, 1.15))
        axes.fill_between(ends, low, high, color=FAINT, label="within 15%")
        axes.plot(ends, ends, color=REFERENCE, lw=1.2)
        for method, (marker, colour, label) in METHODS.items():
            own = [p for p in points if p.point.method == method]
            axes.plot(
                [p.peak / GIB for p in own],
                [p.expected / GIB for p in own],
                marker, color=colour, ms=8, alpha=0.85,
                label=f"{label} ({len(own)})",
            )  # fmt: skip
        ticks = [n for n in (0.5, 1, 2, 4, 8, 16) if ends[0] < n < ends[1]]
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_ticks(ticks, [f"{n:g}" for n in ticks])
            axis.set_ticks([], minor=True)
        axes.legend(loc="upper left")
