"""The figures of notebooks 01, 05, 06 and 10: what they say and count."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import pytest
import torch
from matplotlib.figure import Figure

from helpers.plots import (
    accuracy,
    comparison,
    features,
    logits,
    memory,
    pipeline,
    theory,
)
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


def test_coverage_and_targets_show_every_row(shown: list[Figure]) -> None:
    comparison.coverage([2, 10], TWO, "Too narrow")
    promised, *lines = shown[0].axes[0].lines
    assert list(promised.get_ydata()) == [0.95, 0.95]
    assert {line.get_label() for line in lines} == set(TWO)
    comparison.targets(["a", "b"], TWO, "What is told")
    assert [axes.get_title(loc="left") for axes in shown[1].axes] == list(TWO)
    widths = [bar.get_width() for bar in shown[1].axes[1].patches]
    assert widths == TWO["student"]


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


def test_forest_fills_the_marks_that_are_sure(
    shown: list[Figure],
) -> None:
    rows = [("a", 2.0, 1.0, 3.0, True), ("b", 0.5, 0.1, 2.0, False)]
    comparison.forest({"test": rows, "unseen": rows[:1]}, "One", xlabel="x")
    left, right = shown[0].axes
    assert texts(left.get_yticklabels()) == ["a", "b"]
    assert "".join(texts(right.get_yticklabels())) == ""
    marks = [line for line in left.lines if line.get_marker() == "o"]
    assert [mark.get_xdata()[0] for mark in marks] == [2.0, 0.5]
    inside = [mark.get_markerfacecolor() for mark in marks]
    assert inside[0] != "white" and inside[1] == "white"


def test_influence_bars_show_every_block_once(shown: list[Figure]) -> None:
    influence = [0.5, 0.01, 0.2]
    comparison.influence_bars(influence, [0, 2], "Two stay")
    (axes,) = shown[0].axes
    heights = {
        round(bar.get_x() + bar.get_width() / 2): bar.get_height()
        for bar in axes.patches
    }
    assert heights == dict(enumerate(influence))
    hatched = [bar for bar in axes.patches if bar.get_hatch()]
    assert [bar.get_height() for bar in hatched] == [0.01]


def test_reliability_leaves_out_bins_with_few_tokens(
    shown: list[Figure],
) -> None:
    bins = [[100, 20, 50], [0.15, 0.25, 0.9], [0.1, 0.3, 0.8]]
    comparison.reliability({"teacher": bins}, "Calibrated")
    (axes,) = shown[0].axes
    assert [*axes.lines[1].get_xdata()] == [0.15, 0.9]


def test_over_steps_marks_the_epochs_that_there_are(
    shown: list[Figure],
) -> None:
    points = [(step, 1 / step) for step in range(1, 9)]
    accuracy.over_steps({"training": points}, "Down", epochs=[4, 8])
    (axes,) = shown[0].axes
    assert texts(axes.texts) == ["epoch 1 ", "epoch 2 "]
    assert [*axes.lines[0].get_ydata()] == [y for _, y in points]


def test_nf4_error_plot_counts_how_often_a_level_is_used(
    shown: list[Figure],
) -> None:
    values = torch.linspace(-1, 1, 64)
    codes = torch.tensor([0] * 16 + [7] * 48)
    accuracy.nf4_error_plot(values, values, codes, "Unlike")
    heights = [bar.get_height() for bar in shown[0].axes[1].patches]
    assert heights == [0.25] + [0] * 6 + [0.75] + [0] * 8


def test_pipeline_names_every_signal(shown: list[Figure]) -> None:
    pipeline.pipeline("All three")
    said = " ".join(texts(shown[0].axes[0].texts))
    for word in ("text", "logits", "hidden states", "notebook 05"):
        assert word in said
