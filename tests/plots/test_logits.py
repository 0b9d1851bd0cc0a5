"""helpers.plots.logits: what is drawn, read back from the axes."""

from __future__ import annotations

from pathlib import Path

import matplotlib

matplotlib.use("Agg")

from matplotlib.figure import Figure

from helpers.plots import logits as plots_kd
from helpers.rebuild.arms import Group
from helpers.results import Result


def group(budget: int, arm: str, *correct: int) -> Group:
    command = "python3 -m helpers distill"
    return Group(
        arm,
        budget,
        tuple(
            Result(arm, "mini", seed, 20, right, 1.0, None, command)
            for seed, right in enumerate(correct)
        ),
    )


def test_budget_figure_has_a_line_an_arm(shown: list[Figure]) -> None:
    groups = [
        group(250, "sft_traces", 10, 10),
        group(250, "logit_online", 18, 18),
        group(1000, "logit_online", 15),
    ]
    plots_kd.accuracy_against_budget(groups, "Logits help")
    (axes,) = shown[0].axes
    names = [text.get_text() for text in axes.get_legend().get_texts()]
    assert names == ["teacher text", "logits, online"]
    lines = [c.lines[0] for c in axes.containers]
    looks = {(line.get_marker(), line.get_linestyle()) for line in lines}
    assert len(looks) == 2  # not by colour alone
    assert list(lines[1].get_ydata()) == [0.9, 0.75]
    assert [t.get_text() for t in axes.get_xticklabels()] == ["250", "1,000"]


def test_budget_figure_without_results(shown: list[Figure]) -> None:
    plots_kd.accuracy_against_budget([], "Nothing yet")
    assert shown[0].axes[0].texts[0].get_text() == "no run yet"


def test_covered_mass_figure(shown: list[Figure]) -> None:
    shares = {"T = 1": [0.5, 0.9, 1.0], "T = 4": [0.2, 0.4, 0.6]}
    plots_kd.covered_mass([1, 2, 4], shares, "Most of it", save=None)
    lines = shown[0].axes[0].lines
    assert [list(line.get_ydata()) for line in lines] == list(shares.values())
    assert lines[0].get_linestyle() != lines[1].get_linestyle()


def test_fitted_targets_figure(shown: list[Figure]) -> None:
    teacher = [0.5, 0.3, 0.2]
    plots_kd.fitted_targets(teacher, {"full": teacher}, 1, "It fits")
    axes = shown[0].axes[0]
    assert axes.get_yscale() == "log"
    assert [line.get_label() for line in axes.lines] == ["teacher", "full"]


def test_loss_curves_figure(tmp_path: Path, shown: list[Figure]) -> None:
    path = tmp_path / "curves.png"
    curves = {"online": ([1, 2], [1.0, 0.5]), "cached": ([1, 2], [1.0, 0.4])}
    plots_kd.loss_curves(curves, "They agree", save=path)
    assert path.exists()
    assert list(shown[0].axes[0].lines[1].get_ydata()) == [1.0, 0.4]
