"""The memory planner of notebook 10."""

from __future__ import annotations

from typing import Any

import ipywidgets
from matplotlib.figure import Figure

from helpers import CourseError
from helpers.plots.memory import CARD_SIZES, plans_chart
from helpers.plots.style import headline, to_png
from helpers.scale.planner import GIB, METHODS, Plan, plan_memory
from helpers.scale.shapes import known_models, load_shape
from helpers.widgets.explorer import Explorer

TEACHER = "Qwen3-4B-Thinking-2507"
BITS = {"4 (NF4)": 4, "16 (bfloat16)": 16}
LENGTHS = (256, 512, 1024, 2048, 4096, 8192, 16384)
LOOK = {"style": {"description_width": "80px"}, "layout": {"width": "390px"}}


class PlannerExplorer(Explorer):
    """Settings of a run, and where its memory goes.

    spare: GiB that a card needs for the libraries themselves.
    """

    def __init__(self, model: str = "gemma-3-1b-it", spare: float = 1) -> None:
        super().__init__(width=820)
        self.spare = spare
        drop, slide = ipywidgets.Dropdown, ipywidgets.SelectionSlider
        parts: dict[str, tuple[Any, Any, Any]] = {
            "model": (drop, known_models(), model),
            "method": (drop, METHODS, "sft"),
            "bits": (drop, list(BITS.items()), 4),
            "teacher": (drop, known_models(), TEACHER),
            "rank": (slide, (4, 8, 16, 32, 64, 128), 16),
            "batch": (slide, (1, 2, 4, 8, 12, 16, 32, 64), 4),
            "length": (slide, LENGTHS, 4096),
        }
        self.choices: dict[str, Any] = {
            name: kind(options=options, value=value, description=name, **LOOK)
            for name, (kind, options, value) in parts.items()
        }
        self.choices["checkpointing"] = ipywidgets.Checkbox(
            value=False, description="gradient checkpointing", indent=False
        )
        self.watch(*self.choices.values())

    def settings(self) -> dict[str, Any]:
        """The chosen values by name."""
        return {name: part.value for name, part in self.choices.items()}

    def plan(self) -> Plan:
        """The plan of the chosen settings; may raise CourseError."""
        options = self.settings()
        shape = load_shape(options.pop("model"))
        teacher = load_shape(options.pop("teacher"))
        if options["method"].startswith("logit"):
            options["teacher"] = teacher
        return plan_memory(shape, teacher_bits=4, **options)

    def words(self, plan: Plan) -> str:
        """The peak, and the smallest card that holds it."""
        needed = plan.total / GIB + self.spare
        fitting = [f"{size} GB" for size in CARD_SIZES if size >= needed]
        return (
            f"{plan.total / GIB:.1f} GiB, and {self.spare:g} for the "
            f"libraries; smallest card: {(fitting or ['none here'])[0]}"
        )

    def draw(self) -> None:
        """Redraw for the chosen settings, or say why they cannot be."""
        try:
            plan = self.plan()
        except CourseError as error:
            self.status.value = str(error)
            self.picture.value = b""
            return
        self.status.value = f"<b>{self.words(plan)}</b>"
        now = self.settings()
        title = (
            f"{now['method']}: {now['batch']} x {now['length']:,} tokens, "
            f"{now['bits']}-bit weights"
        )

        def fill(drawn: Figure) -> None:
            headline(drawn, title)
            plans_chart({now["model"]: plan}, ax=drawn.subplots())

        self.picture.value = to_png(fill, size=(8.2, 3.25))
