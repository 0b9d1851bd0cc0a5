"""The figures of notebooks 01, 05, 06 and 10: what they say and count."""

from __future__ import annotations

from dataclasses import fields, replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from matplotlib.figure import Figure

from helpers.plots import features, logits, memory, theory
from helpers.plots.style import colour_of
from helpers.rebuild.memory_points import Measured, Point
from helpers.scale.planner import GIB, Plan, plan_memory
from helpers.scale.shapes import load_shape

TWO = {"teacher": [1.0, 0.2], "student": [0.5, 0.4]}


def texts(items: Any) -> list[str]:
    return [item.get_text() for item in items]


def group(arm: str, budget: int, *seeds: int) -> SimpleNamespace:
    """What the figure reads of a `helpers.rebuild.arms.Group`."""
    results = [SimpleNamespace(accuracy=seed / 10) for seed in seeds]
    return SimpleNamespace(
        arm=arm, name=arm.upper(), budget=budget, results=results,
        correct=sum(seeds), n=10 * len(seeds),
    )  # fmt: skip


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


def test_loss_curves_wear_the_colours_of_their_arms(
    shown: list[Figure],
) -> None:
    logits.loss_curves({"online": ([1], [1]), "disk": ([1], [1])}, "Agree")
    colours = [line.get_color() for line in shown[0].axes[0].lines]
    assert colours == [colour_of("logit_online"), colour_of("logit_cached")]


def test_budget_figure_has_a_line_an_arm(shown: list[Figure]) -> None:
    groups = [group("sft_traces", 250, 4, 6)]
    groups += [group("logit_online", n, 9, 8) for n in (250, 1000)]
    logits.accuracy_against_budget(groups, "Logits help")
    (axes,) = shown[0].axes
    assert texts(axes.get_legend().get_texts()) == [
        "SFT_TRACES", "LOGIT_ONLINE",
    ]  # fmt: skip
    assert texts(axes.get_xticklabels()) == ["250", "1,000"]
    pooled = [list(bars.lines[0].get_ydata()) for bars in axes.containers]
    assert pooled == [[0.5], [0.85, 0.85]]


def test_budget_figure_without_results(shown: list[Figure]) -> None:
    logits.accuracy_against_budget([], "Nothing yet")
    assert texts(shown[0].axes[0].texts) == ["no run yet"]


def test_layer_grids_write_numbers_and_frame_pairs(
    shown: list[Figure],
) -> None:
    grid = torch.arange(20).reshape(4, 5) / 20
    pairs = ((1, 1), (3, 4))
    features.layer_grids({"before": grid, "after": grid}, "Alike", pairs=pairs)
    for axes in shown[0].axes:
        assert texts(axes.texts)[:2] == ["0.00", "0.05"]
        assert len(axes.texts) == 20 and len(axes.patches) == 2


def test_plan_bars_add_up_and_name_the_cards(shown: list[Figure]) -> None:
    named = [field for names, _ in memory.PARTS.values() for field in names]
    assert sorted(named) == sorted(field.name for field in fields(Plan))
    plan = plan_memory(load_shape("gemma-3-1b-it"), length=1024)
    plans = {"all": plan, "no logits": replace(plan, logits=0)}
    memory.plans_chart(plans, "Mostly activations")
    (axes,) = shown[0].axes
    assert f" {plan.total / GIB:.1f} GiB" in texts(axes.texts)
    assert "8 GB" in texts(axes.texts) and "80 GB" not in texts(axes.texts)
    labels = texts(shown[0].legends[0].get_texts())
    assert "logits" in labels and "keys and values" not in labels
    total = sum(plan.total for plan in plans.values()) / GIB
    assert sum(bar.get_width() for bar in axes.patches) == pytest.approx(total)


def test_measured_chart_draws_each_point_once(shown: list[Figure]) -> None:
    points = [
        Measured(Point("Qwen3-0.6B"), 2 * GIB, "cpu"),
        Measured(Point("Qwen3-0.6B", "generate"), GIB, "cpu"),
    ]
    memory.measured_chart(points, "Close")
    lines = shown[0].axes[0].lines[1:]
    drawn = [tuple(xy) for line in lines for xy in line.get_xydata()]
    assert drawn == [(p.peak / GIB, p.expected / GIB) for p in points]


def test_next_token_plot_takes_a_token_for_text(shown: list[Figure]) -> None:
    theory.next_token_plot(
        ["a", "$$"], torch.tensor([0.9, 0.1]), [0.6, 0.4], [0.3, 0.7],
        temperature=3,
    )  # fmt: skip
    (axes,) = shown[0].axes
    heights = [bar.get_height() for bar in axes.patches]
    assert heights == pytest.approx([0.9, 0.1, 0.6, 0.4, 0.3, 0.7])
    shown[0].draw_without_rendering()  # "$$" as a formula would fail


def test_gradient_plot_marks_both_curves(shown: list[Figure]) -> None:
    x = [1.0, 10.0, 100.0]
    theory.gradient_plot(x, [1.0, 1e-2, 1e-4], [1.0] * 3, mark=10.0)
    lines = shown[0].axes[0].lines
    points = [line for line in lines if line.get_marker() == "o"]
    heights = [float(point.get_ydata()[0]) for point in points]
    assert heights == pytest.approx([1.0, 1e-2])
