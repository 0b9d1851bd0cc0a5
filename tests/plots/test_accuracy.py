"""Scores, losses and lengths: the numbers that a figure shows."""

from typing import Any

import pytest
from matplotlib.figure import Figure

from helpers.plots import accuracy as plots
from helpers.results import Result


def _texts(axes: Any) -> list[str]:
    return [text.get_text() for text in axes.texts]


def test_accuracy_bars_of_rows_and_results(shown: list[Figure]) -> None:
    result = Result(
        arm="student_after", profile="mini", seed=7, n=50, correct=40,
        seconds=1.0, peak_memory_mb=None, mode="think",
        command="python3 -m helpers evaluate",
    )  # fmt: skip
    plots.accuracy_bars([("teacher", 90, 100), result], "The teacher leads")
    axes = shown[0].axes[0]
    assert _texts(axes) == ["90.0%  (90/100)", "80.0%  (40/50)"]
    labels = [label.get_text() for label in axes.get_yticklabels()]
    assert labels == ["teacher\nn = 100", "student after (think)\nn = 50"]


def test_intervals_reach_to_the_wilson_ends() -> None:
    shares, (down, up) = plots.intervals([(0, 10), (5, 10)])
    assert shares.tolist() == [0, 0.5]
    assert (shares - down).tolist() == pytest.approx([0, 0.2366], abs=1e-4)
    assert (shares + up).tolist() == pytest.approx([0.2775, 0.7634], abs=1e-4)
