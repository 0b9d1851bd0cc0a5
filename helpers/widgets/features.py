"""The layer-map chooser of notebook 06."""

from __future__ import annotations

from typing import Any

import ipywidgets
from matplotlib.figure import Figure

from helpers.features import MAPS, Pairs, layer_map
from helpers.plots.features import layer_grid
from helpers.plots.style import headline, to_png
from helpers.widgets.explorer import Explorer


class LayerMapExplorer(Explorer):
    """A dropdown of layer maps over the CKA of every pair of layers.

    grid: of helpers.features.cka_grid. widths: the student's and the
    teacher's.
    """

    def __init__(
        self, grid: Any, widths: tuple[int, int], start: str = "even"
    ) -> None:
        super().__init__(width=700)
        self.grid, self.widths = grid, widths
        self.choice = ipywidgets.Dropdown(
            options=[*MAPS, "reversed"], value=start, description="layer map"
        )
        self.watch(self.choice)

    def pairs(self) -> Pairs:
        """The chosen map; `reversed` pairs early with late on purpose."""
        student, teacher = (size - 1 for size in self.grid.shape)
        if self.choice.value == "reversed":
            even = layer_map("even", student, teacher)
            return tuple(
                (own, other)
                for (own, _), (_, other) in zip(even, even[::-1], strict=True)
            )
        return layer_map(self.choice.value, student, teacher, self.grid)

    def words(self) -> str:
        """Pairs, projector parameters and mean CKA of the chosen map."""
        pairs = self.pairs()
        shown = ", ".join(f"{own} → {other}" for own, other in pairs)
        count = len(pairs) * self.widths[0] * self.widths[1]
        mean = sum(self.grid[own, other].item() for own, other in pairs)
        return (
            f"{shown}: {count:,} projector parameters, mean CKA "
            f"{mean / len(pairs):.2f}"
        )

    def draw(self) -> None:
        """Redraw for the chosen map."""
        self.status.value = self.words()

        def fill(drawn: Figure) -> None:
            headline(drawn, f"Layer map {self.choice.value}: {self.words()}")
            layer_grid(self.grid, pairs=self.pairs(), ax=drawn.subplots())

        self.picture.value = to_png(fill, size=(7.0, 4.4))
