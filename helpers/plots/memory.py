"""The figures of notebook 10: where memory goes, and how right the plan is."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes

import helpers.plots.style as style
from helpers.rebuild.memory_points import Measured
from helpers.scale.planner import GIB, Plan

TRAINED = ("adapters", "gradients", "optimizer")
PARTS = {  # label: fields of Plan, colour
    "weights": (("weights",), style.REFERENCE),
    "second model": (("teacher",), style.TEACHER),
    "trained, with Adam": (TRAINED, style.STUDENT),
    "activations": (("activations",), style.ACCENT),
    "logits": (("logits",), style.PURPLE),
    "keys and values": (("cache",), style.RED),
}
PLATE = {"facecolor": "white", "edgecolor": "none", "pad": 1}  # over lines
CARD_SIZES = (8, 16, 24, 48, 80)  # GB
METHODS = {
    "sft": "SFT",
    "logit": "logits",
    "logit_chunked": "logits, chunked",
    "generate": "generation",
}


def plans_chart(
    plans: Mapping[str, Plan], title: str = "", *, ax: Axes | None = None
) -> None:
    """Stacked horizontal bars in GiB, one a plan, with the sizes of cards."""
    names, ends = list(plans), np.zeros(len(plans))
    with style.figure(
        title, xlabel="GiB at the peak, without the libraries themselves",
        ylabel="", size=(8.2, 2.7 + 0.55 * len(plans)), ax=ax,
    ) as axes:  # fmt: skip
        for label, (fields, colour) in PARTS.items():
            sizes = [sum(getattr(plan, field) for field in fields) / GIB
                     for plan in plans.values()]  # fmt: skip
            if any(sizes):
                axes.barh(names, sizes, left=ends, color=colour, label=label)
            ends += sizes
        for name, end in zip(names, ends, strict=True):
            axes.annotate(
                f"{end:.1f} GiB", (end, name), (6, 0), va="center",
                textcoords="offset points", bbox=PLATE,
            )  # fmt: skip
        _draw_cards(axes, max(ends))
        axes.invert_yaxis()
        axes.figure.legend(loc="outside lower left", ncols=3)


def measured_chart(points: Sequence[Measured], title: str) -> None:
    """Expected against measured peak, on logarithmic axes, with +-15%."""
    peaks = [point.peak / GIB for point in points]
    ends = np.array([min(peaks) / 1.5, max(peaks) * 1.5])
    with style.figure(
        title, xlabel="measured peak (GiB, log scale)",
        ylabel="expected (GiB, log scale)", size=(7.5, 4.6),
    ) as axes:  # fmt: skip
        axes.fill_between(ends, 0.85 * ends, 1.15 * ends, color=style.FAINT,
                          label="within 15%")  # fmt: skip
        axes.loglog(ends, ends, base=2, color=style.REFERENCE, lw=1.2)
        for place, (method, label) in enumerate(METHODS.items()):
            shown = [(p.peak / GIB, p.expected / GIB) for p in points
                     if p.point.method == method]  # fmt: skip
            look = style.look(f"{label} ({len(shown)})", place)
            axes.plot(*np.reshape(shown, (-1, 2)).T, ms=8, alpha=0.85,
                      **look | {"linestyle": "none"})  # fmt: skip
        axes.set(xlim=ends, ylim=ends)
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter("{x:g}")
        axes.legend(loc="upper left")


def _draw_cards(axes: Axes, largest: float) -> None:
    """A dashed line at each size of card, up to the first that holds all."""
    smaller = sum(size < largest for size in CARD_SIZES)
    shown = CARD_SIZES[: smaller + 1]
    end = 1.14 * max(largest, *shown)
    free = 0.0  # where the next label may begin
    for size in shown:
        axes.axvline(size, color=style.INK, ls="--", lw=1.2)
        if size >= free:
            axes.text(size, 1.02, f"{size} GB", ha="center", fontsize=11,
                      transform=axes.get_xaxis_transform())  # fmt: skip
            free = size + 0.11 * end
    axes.set_xlim(0, end)
