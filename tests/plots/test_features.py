"""The figures of notebook 06."""

from __future__ import annotations

import torch
from matplotlib.figure import Figure

from helpers.plots import features as plots

GRID = torch.arange(20).reshape(4, 5) / 20


def test_layer_grids_write_numbers_and_frame_pairs(
    shown: list[Figure],
) -> None:
    grids = {"before": GRID, "after": GRID}
    plots.layer_grids(grids, "Alike", pairs=((1, 1), (3, 4)))
    panels = shown[0].axes
    assert [axes.get_title("left") for axes in panels] == list(grids)
    for axes in panels:
        texts = [text.get_text() for text in axes.texts]
        assert len(texts) == 20 and texts[:2] == ["0.00", "0.05"]
        assert len(axes.patches) == 2


def test_norms_and_curves_have_a_line_a_name(shown: list[Figure]) -> None:
    norms = {"teacher": [1.0, 2.0], "student": [3.0, 4.0]}
    plots.norms_by_layer(norms, "Longer")
    runs = {name: list(enumerate(values)) for name, values in norms.items()}
    plots.curves(runs, "Faster", xlabel="step", ylabel="loss")
    for figure in shown:
        lines = figure.axes[0].lines
        drawn = {line.get_label(): [*line.get_ydata()] for line in lines}
        assert drawn == norms
