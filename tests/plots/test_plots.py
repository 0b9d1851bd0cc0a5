"""Figures: what they say and count, and their look."""

from dataclasses import fields, replace

import matplotlib.pyplot as plt
import pytest
import tiny
import torch

from helpers import plots
from helpers.plots import accuracy, comparison, line_chart, memory, theory
from helpers.scale.planner import GIB, Plan, plan_memory
from helpers.scale.shapes import load_shape

TWO = {"teacher": [1.0, 0.2], "student": [0.5, 0.4]}


def texts(items):
    return [item.get_text() for item in items]


def test_figure_wraps_its_title_and_is_saved(shown, tmp_path):
    path = tmp_path / "figure.png"
    before = dict(plt.rcParams)
    with plots.figure("word " * 40, xlabel="x (s)", ylabel="y", save=path):
        pass
    assert dict(plt.rcParams) == before  # the style is the figure's alone
    lines = shown[0].get_suptitle().splitlines()
    assert len(lines) > 1 and max(map(len, lines)) <= 64
    assert shown[0].axes[0].get_xlabel() == "x (s)"
    assert path.read_bytes().startswith(b"\x89PNG")


def test_accuracy_bars_of_rows_and_results(shown):
    result = tiny.result("student_after", "11110" * 10, mode="think")
    accuracy.accuracy_bars([("teacher", 90, 100), result], "It leads")
    axes = shown[0].axes[0]
    assert texts(axes.texts) == ["90.0%  (90/100)", "80.0%  (40/50)"]
    labels = texts(axes.get_yticklabels())
    assert labels == ["teacher\nn = 100", "student after (think)\nn = 50"]


def test_intervals_reach_to_the_wilson_ends():
    shares, (down, up) = accuracy.intervals([(0, 10), (5, 10)])
    assert shares.tolist() == [0, 0.5]
    assert (shares - down).tolist() == pytest.approx([0, 0.2366], abs=1e-4)
    assert (shares + up).tolist() == pytest.approx([0.2775, 0.7634], abs=1e-4)


def test_lines_have_a_name_and_a_look_each(shown):
    points = {name: list(enumerate(y)) for name, y in TWO.items()}
    for y in ("log", "zero", "share"):
        line_chart(points, "Faster", xlabel="step", ylabel="loss", y=y)
    assert len(shown) == 3
    for figure in shown:
        lines = figure.axes[0].lines
        assert {x.get_label(): [*x.get_ydata()] for x in lines} == TWO
        assert len({x.get_linestyle() for x in lines}) == 2
        assert len({x.get_color() for x in lines}) == 2


def test_plan_bars_add_up_and_name_the_cards(shown):
    named = [field for names, _ in memory.PARTS.values() for field in names]
    assert sorted(named) == sorted(field.name for field in fields(Plan))
    plan = plan_memory(load_shape("gemma-3-1b-it"), length=1024)
    plans = {"all": plan, "no logits": replace(plan, logits=0)}
    memory.plans_chart(plans, "Mostly activations")
    (axes,) = shown[0].axes
    assert f"{plan.total / GIB:.1f} GiB" in texts(axes.texts)
    assert "8 GB" in texts(axes.texts) and "80 GB" not in texts(axes.texts)
    total = sum(plan.total for plan in plans.values()) / GIB
    assert sum(bar.get_width() for bar in axes.patches) == pytest.approx(total)


def test_next_token_plot_takes_a_token_for_text(shown):
    probabilities = torch.tensor([0.9, 0.1]), [0.6, 0.4], [0.3, 0.7]
    theory.next_token_plot(["a", "$$"], *probabilities, temperature=3)
    heights = [bar.get_height() for bar in shown[0].axes[0].patches]
    assert heights == pytest.approx([0.9, 0.1, 0.6, 0.4, 0.3, 0.7])
    shown[0].draw_without_rendering()  # "$$" as a formula would fail


def test_forest_fills_the_marks_that_are_sure(shown):
    rows = [("a", 2.0, 1.0, 3.0, True), ("b", 0.5, 0.1, 2.0, False)]
    comparison.forest({"test": rows, "unseen": rows[:1]}, "One", xlabel="x")
    left, right = shown[0].axes
    assert texts(left.get_yticklabels()) == ["a", "b"]
    assert "".join(texts(right.get_yticklabels())) == ""
    sure, unsure = (x for x in left.lines if x.get_marker() == "o")
    assert [*sure.get_xdata(), *unsure.get_xdata()] == [2.0, 0.5]
    assert sure.get_markerfacecolor() != unsure.get_markerfacecolor()
    assert unsure.get_markerfacecolor() == "white"


def test_reliability_leaves_out_bins_with_few_tokens(shown):
    bins = [[100, 20, 50], [0.15, 0.25, 0.9], [0.1, 0.3, 0.8]]
    comparison.reliability({"teacher": bins}, "Calibrated")
    (axes,) = shown[0].axes
    assert [*axes.lines[1].get_xdata()] == [0.15, 0.9]
