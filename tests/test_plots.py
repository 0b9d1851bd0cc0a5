"""helpers.plots.accuracy: what is drawn, read back from the axes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pytest
import torch

matplotlib.use("Agg")

import matplotlib.pyplot as plt
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from helpers.evaluate import wilson_interval
from helpers.plots import accuracy as plots
from helpers.results import Result


def _texts(axes: Any) -> list[str]:
    return [text.get_text() for text in axes.texts]


def test_figure_style_and_labels(shown: list[Figure]) -> None:
    with plots.figure("It works", xlabel="x (s)", ylabel="y (m)") as axes:
        axes.plot([1, 2], [3, 4])
    (figure,) = shown
    assert figure.get_suptitle() == "It works"
    assert figure.axes[0].get_xlabel() == "x (s)"
    assert figure.axes[0].xaxis.label.get_size() >= 12
    assert not figure.axes[0].spines["top"].get_visible()


def test_figure_wraps_a_long_title(shown: list[Figure]) -> None:
    with plots.figure("word " * 40, xlabel="x", ylabel="y"):
        pass
    lines = shown[0].get_suptitle().splitlines()
    assert len(lines) > 1 and max(map(len, lines)) <= 64


def test_figure_error_inside_shows_nothing(shown: list[Figure]) -> None:
    with pytest.raises(RuntimeError, match="stop"):
        with plots.figure("t", xlabel="x", ylabel="y"):
            raise RuntimeError("stop")
    assert shown == []


def test_figure_leaves_the_global_style_alone(shown: list[Figure]) -> None:
    before = dict(plt.rcParams)
    with plots.figure("t", xlabel="x", ylabel="y"):
        assert plt.rcParams["font.size"] == 12
    assert dict(plt.rcParams) == before


def test_figure_saves_a_png(shown: list[Figure], tmp_path: Path) -> None:
    path = tmp_path / "figure.png"
    with plots.figure("t", xlabel="x", ylabel="y", save=path):
        pass
    assert path.read_bytes().startswith(b"\x89PNG")
    assert path.stat().st_size < 60_000


def test_colour_of_keeps_the_roles() -> None:
    assert plots.colour_of("mini teacher") == plots.TEACHER
    assert plots.colour_of("student_after") == plots.STUDENT
    assert plots.colour_of("student_before") == plots.REFERENCE
    others = {plots.colour_of("x", place=place) for place in range(5)}
    assert len(others) == 5 and plots.TEACHER not in others


def test_accuracy_bars_rows(shown: list[Figure]) -> None:
    rows = [("teacher", 90, 100), ("student before", 30, 100)]
    plots.accuracy_bars(rows, "The teacher leads")
    axes = shown[0].axes[0]
    assert [bar.get_width() for bar in axes.patches] == [0.9, 0.3]
    assert [to_hex(bar.get_facecolor()) for bar in axes.patches] == [
        plots.TEACHER,
        plots.REFERENCE,
    ]
    labels = [label.get_text() for label in axes.get_yticklabels()]
    assert labels == ["teacher\nn = 100", "student before\nn = 100"]
    assert _texts(axes)[0] == "90.0%  (90/100)"
    ends = axes.collections[0].get_segments()[0][:, 0]
    assert ends == pytest.approx(wilson_interval(90, 100))


def test_accuracy_bars_from_results(shown: list[Figure]) -> None:
    result = Result(
        "student_after", "mini", 7, 50, 40, 1.0, None,
        "python3 -m helpers evaluate", mode="think",
    )  # fmt: skip
    plots.accuracy_bars([result], "One arm")
    axes = shown[0].axes[0]
    label = axes.get_yticklabels()[0].get_text()
    assert label == "student after (think)\nn = 50"
    assert axes.patches[0].get_width() == 0.8


def test_learning_curve_lines_and_epochs(shown: list[Figure]) -> None:
    log = [
        {"loss": 2.0, "step": 5, "epoch": 0.5, "learning_rate": 1e-3},
        {"loss": 1.0, "step": 10, "epoch": 1.0},
        {"eval_loss": 1.2, "step": 10, "epoch": 1.0},
        {"train_runtime": 3.0, "step": 10, "epoch": 1.0},
    ]
    plots.learning_curve(log, "It falls")
    axes = shown[0].axes[0]
    training, evaluation, epoch = axes.lines
    assert training.get_xydata().tolist() == [[5, 2.0], [10, 1.0]]
    assert evaluation.get_xydata().tolist() == [[10, 1.2]]
    assert list(epoch.get_xdata()) == [10, 10]
    assert _texts(axes) == ["epoch 1 "]


def test_learning_curve_of_an_empty_log(shown: list[Figure]) -> None:
    plots.learning_curve([], "Nothing yet")
    assert len(shown) == 1


def test_length_histogram_counts_everything(shown: list[Figure]) -> None:
    groups = {"teacher": [10, 20, 30, 100], "student": [5, 7]}
    plots.length_histogram({**groups, "empty": []}, "Longer")
    axes = shown[0].axes[0]
    labels = [text.get_text() for text in axes.get_legend().get_texts()]
    assert labels == ["teacher: median 25, n = 4", "student: median 6, n = 2"]
    assert axes.get_xlim()[1] == 101
    medians = [line.get_xdata()[0] for line in axes.lines]
    assert medians == [25, 6]


def test_accuracy_against_sorts_and_labels(shown: list[Figure]) -> None:
    plots.accuracy_against(
        [16, 1], [80, 40], 100, "LoRA rank", "More is more",
        log2=True, references={"teacher": 0.93},
    )  # fmt: skip
    axes = shown[0].axes[0]
    assert axes.lines[0].get_xydata().tolist() == [[1, 0.4], [16, 0.8]]
    assert _texts(axes) == ["40%", "80%", "teacher\n93.0%"]
    ticks = [label.get_text() for label in axes.get_xticklabels()]
    assert ticks == ["1", "16"] and axes.get_xscale() == "log"


def test_accuracy_against_totals_a_point(shown: list[Figure]) -> None:
    plots.accuracy_against([1, 2], [5, 5], [10, 20], "epoch", "t")
    axes = shown[0].axes[0]
    assert axes.lines[0].get_ydata().tolist() == [0.5, 0.25]
    assert all(tick == round(tick) for tick in axes.get_xticks())


def test_accuracy_against_before_the_first_run(shown: list[Figure]) -> None:
    plots.accuracy_against([], [], 100, "LoRA rank", "t", log2=True)
    assert _texts(shown[0].axes[0]) == ["no run yet"]


def test_accuracy_against_uneven_input(shown: list[Figure]) -> None:
    with pytest.raises(ValueError):
        plots.accuracy_against([1, 2], [5], 10, "x", "t")
    assert shown == []


def test_nf4_error_plot_states_the_error(shown: list[Figure]) -> None:
    original = torch.tensor([[3.0, -4.0], [0.0, 0.0]])
    rounded = torch.tensor([[3.0, -4.5], [0.0, 0.0]]).bfloat16()
    plots.nf4_error_plot(original, rounded, "Half a step", block=2)
    stairs, errors = shown[0].axes
    assert _texts(errors) == ["relative error 10.0%\nn = 4"]
    points = stairs.collections[1].get_offsets()
    assert np.asarray(points).tolist() == [[3.0, 3.0], [-4.0, -4.5]]
    assert sum(bar.get_height() for bar in errors.patches) == 4


def test_token_strip_marks_what_is_trained() -> None:
    strip = plots.token_strip_html(["<bos>", "Ġsix", "ty"], [0, 1, 1]).data
    assert strip.count("<mark ") == 3  # two tokens and the legend
    assert "2 of 3 tokens (66.7%)" in strip
    assert "&lt;bos&gt;" in strip and "<bos>" not in strip
    assert "> six</mark>" in strip and "Ġ" not in strip


def test_token_strip_shows_line_breaks() -> None:
    strip = plots.token_strip_html(["a", "Ċ", "\n\n"], [1, 0, 0]).data
    assert "⏎</span><br>" in strip and "⏎⏎</span><br>" in strip


def test_token_strip_readable_on_dark_and_light() -> None:
    strip = plots.token_strip_html(["a", "b"], [1, 0]).data
    assert "color:inherit" in strip  # <mark> would force black on yellow
    assert "rgba(" in strip and "http" not in strip


def test_token_strip_of_nothing() -> None:
    assert "0 of 0 tokens" in plots.token_strip_html([], []).data


def test_token_strip_rejects_uneven_input() -> None:
    with pytest.raises(ValueError, match="3 tokens but 2 mask values"):
        plots.token_strip_html(["a", "b", "c"], [1, 0])
