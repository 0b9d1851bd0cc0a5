"""The memory planner of notebook 10."""

from typing import Any

import ipywidgets
from matplotlib.figure import Figure

from helpers.plots.memory import CARD_SIZES, plans_chart
from helpers.plots.style import headline
from helpers.scale.planner import GIB, METHODS, Plan, plan_memory
from helpers.scale.shapes import known_models, load_shape
from helpers.widgets.explorer import Explorer

SPARE = 1  # GiB of a card that the libraries themselves need
STUDENT, TEACHER = "gemma-3-1b-it", "Qwen3-4B-Thinking-2507"
BITS = (("4 (NF4)", 4), ("16 (bfloat16)", 16))
LOOK = {"style": {"description_width": "80px"}, "layout": {"width": "390px"}}


class PlannerExplorer(Explorer):
    """Settings of a run, and where its memory goes."""

    def __init__(self) -> None:
        super().__init__(size=(8.2, 3.25))
        drop, slide = ipywidgets.Dropdown, ipywidgets.SelectionSlider
        parts: dict[str, tuple[Any, Any, Any]] = {
            "model": (drop, known_models(), STUDENT),
            "method": (drop, METHODS, "sft"),
            "bits": (drop, BITS, 4),
            "teacher": (drop, known_models(), TEACHER),
            "rank": (slide, (4, 8, 16, 32, 64, 128), 16),
            "batch": (slide, (1, 2, 4, 8, 12, 16, 32, 64), 4),
            "length": (slide, [2**n for n in range(8, 15)], 4096),
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

    def words(self) -> str:
        """The peak, and the smallest card that holds it."""
        peak = self.plan().total / GIB
        fitting = [c for c in CARD_SIZES if c >= peak + SPARE]
        card = f"{fitting[0]} GB" if fitting else "none here"
        return (
            f"<b>{peak:.1f} GiB, and {SPARE} for the libraries; "
            f"smallest card: {card}</b>"
        )

    def paint(self, drawn: Figure) -> None:
        """The plan as a bar."""
        now = self.settings()
        title = "{method}: {batch} x {length:,} tokens, {bits}-bit weights"
        headline(drawn, title.format(**now))
        plans_chart({now["model"]: self.plan()}, ax=drawn.subplots())
