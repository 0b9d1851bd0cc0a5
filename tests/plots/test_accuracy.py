"""Scores, losses and lengths: the numbers that a figure shows."""

from __future__ import annotations

from typing import Any

import pytest
import torch
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


def test_learning_curve_marks_epochs_between_its_points(
    shown: list[Figure],
) -> None:
    # Losses every 5 steps, epochs of 12: no row stands where one ends.
    log = [
        {"loss": 1 / step, "step": step, "epoch": step / 12}
        for step in range(5, 30, 5)
    ]
    log += [{"train_runtime": 3.0, "step": 24, "epoch": 2.0}]
    plots.learning_curve(log, "It falls")
    axes = shown[0].axes[0]
    assert [line.get_xdata()[0] for line in axes.lines] == [5, 12, 24]
    assert [text.strip() for text in _texts(axes)] == ["epoch 1", "epoch 2"]


def test_length_histogram_tells_medians(shown: list[Figure]) -> None:
    groups = {"right": [10, 20, 30, 100], "wrong": [5, 7], "empty": []}
    plots.length_histogram(groups, "Longer")
    legend = shown[0].axes[0].get_legend().get_texts()
    labels = [text.get_text() for text in legend]
    assert labels == ["right: median 25, n = 4", "wrong: median 6, n = 2"]


def test_accuracy_against_labels_and_ticks(shown: list[Figure]) -> None:
    plots.accuracy_against(
        [16, 1], [80, 5], [100, 20], "LoRA rank", "More is more",
        log2=True, references={"teacher": 0.93},
    )  # fmt: skip
    axes = shown[0].axes[0]
    assert _texts(axes) == ["80%", "25%", "teacher\n93.0%"]
    ticks = [label.get_text() for label in axes.get_xticklabels()]
    assert ticks == ["1", "16"]


def test_accuracy_against_before_the_first_run(shown: list[Figure]) -> None:
    plots.accuracy_against([], [], [], "LoRA rank", "No run", log2=True)
    assert len(shown) == 1


def test_accuracy_against_uneven_input(shown: list[Figure]) -> None:
    with pytest.raises(ValueError):
        plots.accuracy_against([1, 2], [5], 10, "x", "t")
    assert shown == []


def test_intervals_reach_to_the_wilson_ends() -> None:
    shares, (down, up) = plots.intervals([(0, 10), (5, 10)])
    assert shares.tolist() == [0, 0.5]
    assert (shares - down).tolist() == pytest.approx([0, 0.2366], abs=1e-4)
    assert (shares + up).tolist() == pytest.approx([0.2775, 0.7634], abs=1e-4)


def test_nf4_error_plot_states_the_error(shown: list[Figure]) -> None:
    original = torch.tensor([[3.0, -4.0], [0.0, 0.0]])
    rounded = torch.tensor([[3.0, -4.5], [0.0, 0.0]]).bfloat16()
    plots.nf4_error_plot(original, rounded, "Half a step", block=2)
    assert _texts(shown[0].axes[1]) == ["relative error 10.0%\nn = 4"]
