"""The figures of notebook 05."""

from __future__ import annotations

from types import SimpleNamespace

from matplotlib.figure import Figure

from helpers.plots import logits as plots
from helpers.plots.style import colour_of


def group(arm: str, budget: int, *seeds: int) -> SimpleNamespace:
    """What the figure reads of a `helpers.rebuild.arms.Group`."""
    results = [SimpleNamespace(accuracy=seed / 10) for seed in seeds]
    return SimpleNamespace(
        arm=arm, name=arm.upper(), budget=budget, results=results,
        correct=sum(seeds), n=10 * len(seeds),
    )  # fmt: skip


def test_budget_figure_has_a_line_an_arm(shown: list[Figure]) -> None:
    groups = [group("sft_traces", 250, 4, 6)]
    groups += [group("logit_online", n, 9, 8) for n in (250, 1000)]
    plots.accuracy_against_budget(groups, "Logits help")
    (axes,) = shown[0].axes
    names = [text.get_text() for text in axes.get_legend().get_texts()]
    assert names == ["SFT_TRACES", "LOGIT_ONLINE"]
    lines = [c.lines[0] for c in axes.containers]
    looks = {(line.get_marker(), line.get_linestyle()) for line in lines}
    assert len(looks) == 2  # not by colour alone
    assert [t.get_text() for t in axes.get_xticklabels()] == ["250", "1,000"]
    dots = [line for line in axes.lines if line.get_marker() == "."]
    assert [list(dot.get_ydata()) for dot in dots] == [
        [0.4, 0.6], [0.9, 0.8], [0.9, 0.8],
    ]  # fmt: skip


def test_budget_figure_without_results(shown: list[Figure]) -> None:
    plots.accuracy_against_budget([], "Nothing yet")
    assert shown[0].axes[0].texts[0].get_text() == "no run yet"


def test_lines_differ_in_more_than_colour(shown: list[Figure]) -> None:
    shares = {"T = 1": [0.5, 0.9, 1.0], "T = 4": [0.2, 0.4, 0.6]}
    plots.covered_mass([1, 2, 4], shares, "Most of it")
    plots.fitted_targets([0.5, 0.3, 0.2], shares, 1, "It fits")
    covered, fitted = (figure.axes[0].lines for figure in shown)
    for lines in (covered, fitted[1:]):
        drawn = [list(line.get_ydata()) for line in lines]
        assert drawn == list(shares.values())
        assert lines[0].get_linestyle() != lines[1].get_linestyle()


def test_loss_curves_wear_the_colours_of_their_arms(
    shown: list[Figure],
) -> None:
    curves = {"teacher": ([1, 2], [1.0, 0.5]), "cache": ([1, 2], [1.0, 0.4])}
    plots.loss_curves(curves, "They agree")
    lines = shown[0].axes[0].lines
    assert [line.get_label() for line in lines] == list(curves)
    colours = [line.get_color() for line in lines]
    arms = ("logit_online", "logit_cached")
    assert colours == [colour_of(arm) for arm in arms]
