"""The figures of notebooks 01, 05, 06 and 10: what they say and count."""

from dataclasses import fields, replace
from typing import Any

import pytest
import torch
from matplotlib.figure import Figure

from helpers.plots import comparison, features, logits, memory, theory
from helpers.scale.planner import GIB, Plan, plan_memory
from helpers.scale.shapes import load_shape

TWO = {"teacher": [1.0, 0.2], "student": [0.5, 0.4]}


def texts(items: Any) -> list[str]:
    return [item.get_text() for item in items]


def test_lines_have_a_name_and_a_look_each(shown: list[Figure]) -> None:
    points = {name: list(enumerate(y)) for name, y in TWO.items()}
    features.norms_by_layer(TWO, "Longer")
    features.curves(points, "Faster", xlabel="step", ylabel="loss")
    logits.covered_mass([1, 2], TWO, "Most of it")
    logits.loss_curves({k: ([1, 2], y) for k, y in TWO.items()}, "They agree")
    theory.width_plot([2, 4], TWO, marks={}, title="Wider")
    assert len(shown) == 5
    for figure in shown:
        first, second = figure.axes[0].lines
        drawn = {
            line.get_label(): [*line.get_ydata()] for line in (first, second)
        }
        assert drawn == TWO
        assert first.get_linestyle() != second.get_linestyle()
        assert first.get_color() != second.get_color()


def test_plan_bars_add_up_and_name_the_cards(shown: list[Figure]) -> None:
    named = [field for names, _ in memory.PARTS.values() for field in names]
    assert sorted(named) == sorted(field.name for field in fields(Plan))
    plan = plan_memory(load_shape("gemma-3-1b-it"), length=1024)
    plans = {"all": plan, "no logits": replace(plan, logits=0)}
    memory.plans_chart(plans, "Mostly activations")
    (axes,) = shown[0].axes
    assert f" {plan.total / GIB:.1f} GiB" in texts(axes.texts)
    assert "8 GB" in texts(axes.texts) and "80 GB" not in texts(axes.texts)
    total = sum(plan.total for plan in plans.values()) / GIB
    assert sum(bar.get_width() for bar in axes.patches) == pytest.approx(total)


def test_next_token_plot_takes_a_token_for_text(shown: list[Figure]) -> None:
    theory.next_token_plot(
        ["a", "$$"], torch.tensor([0.9, 0.1]), [0.6, 0.4], [0.3, 0.7],
        temperature=3,
    )  # fmt: skip
    (axes,) = shown[0].axes
    heights = [bar.get_height() for bar in axes.patches]
    assert heights == pytest.approx([0.9, 0.1, 0.6, 0.4, 0.3, 0.7])
    shown[0].draw_without_rendering()  # "$$" as a formula would fail


def test_forest_fills_the_marks_that_are_sure(shown: list[Figure]) -> None:
    rows = [("a", 2.0, 1.0, 3.0, True), ("b", 0.5, 0.1, 2.0, False)]
    comparison.forest({"test": rows, "unseen": rows[:1]}, "One", xlabel="x")
    left, right = shown[0].axes
    assert texts(left.get_yticklabels()) == ["a", "b"]
    assert "".join(texts(right.get_yticklabels())) == ""
    marks = [line for line in left.lines if line.get_marker() == "o"]
    assert [mark.get_xdata()[0] for mark in marks] == [2.0, 0.5]
    inside = [mark.get_markerfacecolor() for mark in marks]
    assert inside[0] != "white" and inside[1] == "white"


def test_reliability_leaves_out_bins_with_few_tokens(
    shown: list[Figure],
) -> None:
    bins = [[100, 20, 50], [0.15, 0.25, 0.9], [0.1, 0.3, 0.8]]
    comparison.reliability({"teacher": bins}, "Calibrated")
    (axes,) = shown[0].axes
    assert [*axes.lines[1].get_xdata()] == [0.15, 0.9]
