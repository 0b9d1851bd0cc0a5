"""The layer-map chooser of notebook 06."""

from __future__ import annotations

from typing import Any

import ipywidgets
from IPython.display import Image

from helpers.features import MAPS, Pairs, layer_map
from helpers.plots.features import layer_map_png


class LayerMapExplorer:
    """A dropdown of layer maps over the CKA of every pair of layers.

    grid: of helpers.features.cka_grid. widths: the student's and the
    teacher's. `show()` displays it, `still()` leaves a picture for readers
    without a kernel.
    """

    def __init__(
        self, grid: Any, widths: tuple[int, int], start: str = "even"
    ) -> None:
        self.grid, self.widths = grid, widths
        self.choice = ipywidgets.Dropdown(
            options=[*MAPS, "reversed"],
            value=start,
            description="layer map",
            style={"description_width": "initial"},
        )
        self.status = ipywidgets.HTML()
        self.picture = ipywidgets.Image(format="png", width=700)
        self.choice.observe(lambda _: self.draw(), names="value")
        self.draw()

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
        self.picture.value = self.png(f"Layer map: {self.choice.value}")

    def png(self, title: str) -> bytes:
        """The picture of the chosen map."""
        return layer_map_png(self.grid, self.pairs(), title)

    def show(self) -> ipywidgets.VBox:
        """The widget, to be the last value of a cell."""
        return ipywidgets.VBox([self.choice, self.status, self.picture])

    def still(self) -> Image:
        """The same picture without a widget."""
        title = f"Layer map: {self.choice.value} ({self.words()})"
        return Image(self.png(title), width=700)
