"""The course in one picture: teacher, student, three signals, notebooks."""

from matplotlib.axes import Axes
from matplotlib.patches import FancyBboxPatch

import helpers.plots.style as style

SIGNALS = (  # name, what passes, notebooks, colour
    ("text", "what it says", "notebooks 02, 03", style.STUDENT),
    ("logits", "how sure it is", "notebook 05", style.ACCENT),
    ("hidden states", "what it computes", "notebook 06", style.PURPLE),
)


def pipeline(title: str) -> None:
    """Boxes for the two models, an arrow for every signal between them."""
    with style.canvas(title, size=(9.5, 3.9)) as (axes,):
        axes.set(xlim=(0, 10), ylim=(0, 5))
        axes.axis("off")
        box(axes, 0.1, 1.3, "teacher\n\nlarge,\nthinks", style.TEACHER)
        box(axes, 7.9, 1.3, "student\n\nsmall,\nlearns", style.REFERENCE)
        for place, (name, what, where, colour) in enumerate(SIGNALS):
            height = 4.4 - 1.25 * place
            axes.annotate(
                "", (7.75, height), (2.15, height),
                arrowprops={"arrowstyle": "-|>", "lw": 3, "color": colour},
            )  # fmt: skip
            axes.text(4.95, height + 0.13, f"{name}: {what}", ha="center",
                      color=colour, fontweight="bold")  # fmt: skip
            axes.text(4.95, height - 0.45, where, ha="center",
                      color=style.INK)  # fmt: skip
        below = ("theory: 01", "measured: 04", "larger models: 10",
                 "a teacher cut in half: 11")  # fmt: skip
        plate = {"fc": style.FAINT, "lw": 0, "boxstyle": "round,pad=0.5"}
        axes.text(5, 0.55, "   |   ".join(below), ha="center",
                  color=style.INK, bbox=plate)  # fmt: skip


def box(axes: Axes, x: float, y: float, text: str, colour: str) -> None:
    """A model: a rounded box with its name in the middle."""
    shape = FancyBboxPatch((x, y), 1.9, 3.4, boxstyle="round,pad=0.05",
                           fc=colour, ec=style.INK)  # fmt: skip
    axes.add_patch(shape)
    axes.text(x + 0.95, y + 1.7, text, ha="center", va="center",
              color="white", fontweight="bold")  # fmt: skip
