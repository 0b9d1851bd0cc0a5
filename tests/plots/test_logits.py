"""The figures of notebook 05."""

from __future__ import annotations

from types import SimpleNamespace

from matplotlib.figure import Figure

from helpers import plots


def group(arm: str, budget: int, *seeds: float) -> SimpleNamespace:
    """What the figure reads of a `helpers.rebuild.arms.Group`."""
    share = sum(seeds) / len(seeds)
    results = [SimpleNamespace(accuracy=seed) for seed in seeds]
    return SimpleNamespace(
        arm=arm, name=arm.upper(), budget=budget, accuracy=share,
        interval=(share - 0.1, share + 0.1), results=results,
    )  # fmt: skip


def test_budget_figure_has_a_line_an_arm(shown: list[Figure]) -> None:
    groups = [group("sft_traces", 250, 0.4, 0.6)]
    groups += [group("logit_online", n, 0.9, 0.8) for n in (250, 1000)]
    plots.accuracy_against_budget(groups, "Logits help")
    (axes,) = shown[0].axes
    names = [text.get_text() for text in axes.get_legend().get_texts()]
    assert names == ["SFT_TRACES", "LOGIT_ONLINE"]
    lines = [c.lines[0] for c in axes.containers]
    looks = {(line.get_marker(), line.get_linestyle()) for line in lines}
    assert len(looks) == 2  # not by colour alone
    assert [t.get_text() for t in axes.get_xticklabels()] == ["250", "1,000"]


def test_budget_figure_without_results(shown: list[Figure]) -> None:
    plots.accuracy_against_budget([], "Nothing yet")
    assert shown[0].axes[0].texts[0].get_text() == "no run yet"


def test_covered_mass_figure(shown: list[Figure]) -> None:
    shares = {"T = 1": [0.5, 0.9, 1.0], "T = 4": [0.2, 0.4, 0.6]}
    plots.covered_mass([1, 2, 4], shares, "Most of it")
    lines = shown[0].axes[0].lines
    assert [list(line.get_ydata()) for line in lines] == list(shares.values())
    assert lines[0].get_linestyle() != lines[1].get_linestyle()


def test_fitted_targets_figure(shown: list[Figure]) -> None:
    teacher = [0.5, 0.3, 0.2]
    plots.fitted_targets(teacher, {"full": teacher}, 1, "It fits")
    labels = [line.get_label() for line in shown[0].axes[0].lines]
    assert labels == ["teacher", "full"]


def test_loss_curves_wear_the_colours_of_their_arms(
    shown: list[Figure],
) -> None:
    curves = {"teacher": ([1, 2], [1.0, 0.5]), "cache": ([1, 2], [1.0, 0.4])}
    plots.loss_curves(curves, "They agree")
    colours = [line.get_color() for line in shown[0].axes[0].lines]
    arms = ("logit_online", "logit_cached")
    assert colours == [plots.colour_of(arm) for arm in arms]
