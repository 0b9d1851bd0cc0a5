"""The layer-map chooser of notebook 06."""

from typing import Any

import ipywidgets
from matplotlib.figure import Figure

from helpers.features import MAPS, Pairs, layer_map
from helpers.plots.features import layer_grid
from helpers.plots.style import headline
from helpers.widgets.explorer import Explorer


class LayerMapExplorer(Explorer):
    """A dropdown of layer maps over the CKA of every pair of layers.

    grid: of helpers.features.cka_grid. widths: the student's and the
    teacher's.
    """

    def __init__(
        self, grid: Any, widths: tuple[int, int], start: str = "even"
    ) -> None:
        super().__init__(size=(7.0, 4.4))
        self.grid, self.widths = grid, widths
        self.choice = ipywidgets.Dropdown(
            options=[*MAPS, "reversed"], value=start, description="layer map"
        )
        self.watch(self.choice)

    def pairs(self) -> Pairs:
        """The chosen map; `reversed` pairs early with late on purpose."""
        depths = [size - 1 for size in self.grid.shape]
        if self.choice.value == "reversed":
            student, teacher = zip(*layer_map("even", *depths), strict=True)
            return tuple(zip(student, teacher[::-1], strict=True))
        return layer_map(self.choice.value, *depths, self.grid)

    def words(self) -> str:
        """Pairs, projector parameters and mean CKA of the chosen map."""
        pairs = self.pairs()
        arrows = ", ".join(f"{s} → {t}" for s, t in pairs)
        count = len(pairs) * self.widths[0] * self.widths[1]
        mean = sum(self.grid[s, t].item() for s, t in pairs) / len(pairs)
        return f"{arrows}: {count:,} projector parameters, mean CKA {mean:.2f}"

    def paint(self, drawn: Figure) -> None:
        """The grid, with the chosen map's pairs in frames."""
        headline(drawn, f"Layer map {self.choice.value}: {self.words()}")
        layer_grid(self.grid, pairs=self.pairs(), ax=drawn.subplots())
