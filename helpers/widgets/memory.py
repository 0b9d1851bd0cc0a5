"""The memory planner of notebook 10."""

from __future__ import annotations

from typing import Any

import ipywidgets
from IPython.display import Image

from helpers.plots.memory import CARD_SIZES, plans_png
from helpers.scale.planner import (
    GIB,
    METHODS,
    Plan,
    PlanError,
    plan_memory,
)
from helpers.scale.shapes import known_models, load_shape

TEACHER = "Qwen3-4B-Thinking-2507"
BITS = {"4 (NF4)": 4, "16 (bfloat16)": 16}
STYLE = {"description_width": "80px"}
WIDE = {"width": "390px"}


class PlannerExplorer:
    """Settings of a run, and where its memory goes.

    `show()` displays it, `still()` leaves a picture for readers without a
    kernel. spare: GiB that a card needs for the libraries themselves.
    """

    def __init__(self, model: str = "gemma-3-1b-it", spare: float = 1) -> None:
        self.spare = spare
        drop, slide = ipywidgets.Dropdown, ipywidgets.SelectionSlider
        lengths = (256, 512, 1024, 2048, 4096, 8192, 16384)
        parts: dict[str, tuple[Any, Any, Any]] = {
            "model": (drop, known_models(), model),
            "method": (drop, METHODS, "sft"),
            "bits": (drop, list(BITS.items()), 4),
            "teacher": (drop, known_models(), TEACHER),
            "rank": (slide, (4, 8, 16, 32, 64, 128), 16),
            "batch": (slide, (1, 2, 4, 8, 12, 16, 32, 64), 4),
            "length": (slide, lengths, 4096),
        }
        self.controls: dict[str, Any] = {
            name: kind(
                options=options,
                value=value,
                description=name,
                style=STYLE,
                layout=WIDE,
            )
            for name, (kind, options, value) in parts.items()
        }
        self.controls["checkpointing"] = ipywidgets.Checkbox(
            value=False, description="gradient checkpointing", indent=False
        )
        self.status = ipywidgets.HTML()
        self.picture = ipywidgets.Image(format="png", width=820)
        for control in self.controls.values():
            control.observe(lambda _: self.draw(), names="value")
        self.draw()

    def settings(self) -> dict[str, Any]:
        """The chosen values by name."""
        return {name: part.value for name, part in self.controls.items()}

    def plan(self) -> Plan:
        """The plan of the chosen settings; may raise PlanError."""
        options = self.settings()
        shape = load_shape(options.pop("model"))
        teacher = load_shape(options.pop("teacher"))
        if options["method"].startswith("logit"):
            options["teacher"] = teacher
        return plan_memory(shape, teacher_bits=4, **options)

    def words(self, plan: Plan) -> str:
        """The peak, and the smallest card that holds it."""
        needed = plan.total / GIB + self.spare
        fitting = [size for size in CARD_SIZES if size >= needed]
        card = "no single card here"
        if fitting:
            article = "an" if fitting[0] in (8, 80) else "a"
            card = f"{article} {fitting[0]} GB card"
        return (
            f"{plan.total / GIB:.1f} GiB, and {self.spare:g} for the "
            f"libraries: {card}"
        )

    def png(self, plan: Plan) -> bytes:
        """The picture of a plan."""
        return plans_png({self.controls["model"].value: plan}, self.title())

    def title(self) -> str:
        """The settings in words."""
        chosen = self.settings()
        text = f"{chosen['method']}: {chosen['batch']} x {chosen['length']:,}"
        return f"{text} tokens, {chosen['bits']}-bit weights"

    def draw(self) -> None:
        """Redraw for the chosen settings, or say why they cannot be."""
        try:
            plan = self.plan()
        except PlanError as error:
            self.status.value = str(error)
            self.picture.value = b""
            return
        self.status.value = f"<b>{self.words(plan)}</b>"
        self.picture.value = self.png(plan)

    def show(self) -> ipywidgets.VBox:
        """The widget, to be the last value of a cell."""
        names = list(self.controls)
        columns = [
            ipywidgets.VBox([self.controls[name] for name in group])
            for group in (names[:4], names[4:])
        ]
        return ipywidgets.VBox(
            [ipywidgets.HBox(columns), self.status, self.picture]
        )

    def still(self) -> Image:
        """The same picture without a widget."""
        return Image(self.png(self.plan()), width=820)
