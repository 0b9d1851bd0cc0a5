"""The figures of notebook 01."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

from helpers import plots
from helpers.widgets.theory import two_peaks


def test_next_token_plot_bars(shown: list[Figure]) -> None:
    plots.next_token_plot(
        ["a", "$$"], torch.tensor([0.9, 0.1]), [0.6, 0.4], [0.3, 0.7],
        temperature=3, title="soft",
    )  # fmt: skip
    (axes,) = shown[0].axes
    heights = [bar.get_height() for bar in axes.patches]
    assert heights == pytest.approx([0.9, 0.1, 0.6, 0.4, 0.3, 0.7])
    texts = [text.get_text() for text in axes.get_legend().get_texts()]
    assert texts == ["teacher, T = 1", "teacher, T = 3", "student, T = 3"]
    assert {bar.get_hatch() for bar in axes.patches[4:]} == {"//"}
    shown[0].draw_without_rendering()  # "$$" is a token, no formula


def test_two_peaks_plot_draws_densities(shown: list[Figure]) -> None:
    grid, mass = two_peaks()
    plots.two_peaks_plot(grid, mass, {"one": mass, "two": mass})
    lines = shown[0].axes[0].lines
    for line in lines:
        area = np.trapezoid(line.get_ydata(), line.get_xdata())
        assert area == pytest.approx(1, abs=1e-6)
    assert len({line.get_linestyle() for line in lines[1:]}) == 2


def test_gradient_plot_marks_both_curves(shown: list[Figure]) -> None:
    x = [1.0, 10.0, 100.0]
    plots.gradient_plot(x, [1.0, 1e-2, 1e-4], [1.0] * 3, mark=10.0)
    lines = shown[0].axes[0].lines
    points = [line for line in lines if line.get_marker() == "o"]
    heights = [float(point.get_ydata()[0]) for point in points]
    assert heights == pytest.approx([1.0, 1e-2])


def test_width_plot_names_what_it_marks(shown: list[Figure]) -> None:
    shares = {"all": [0.2, 0.4], "some": [0.5, 1.0]}
    plots.width_plot([2, 4], shares, marks={"ours": 128}, title="Wider")
    (axes,) = shown[0].axes
    assert [text.get_text() for text in axes.texts] == ["ours"]
    assert axes.lines[0].get_linestyle() != axes.lines[1].get_linestyle()
