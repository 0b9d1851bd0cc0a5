"""The figures of notebook 10."""

from __future__ import annotations

from dataclasses import fields, replace

import pytest
from matplotlib.figure import Figure

from helpers.plots import memory as plots
from helpers.rebuild.memory_points import Measured, Point
from helpers.scale.planner import GIB, Plan, plan_memory
from helpers.scale.shapes import load_shape

PLAN = plan_memory(load_shape("gemma-3-1b-it"), length=1024)


def test_parts_name_every_field_of_a_plan() -> None:
    named = [field for names, _ in plots.PARTS.values() for field in names]
    assert sorted(named) == sorted(field.name for field in fields(Plan))


def test_plans_are_bars_with_the_cards_that_matter(
    shown: list[Figure],
) -> None:
    plans = {"all": PLAN, "no logits": replace(PLAN, logits=0)}
    plots.plans_chart(plans, "Mostly activations")
    (axes,) = shown[0].axes
    texts = [text.get_text() for text in axes.texts]
    assert f" {PLAN.total / GIB:.1f} GiB" in texts
    assert "8 GB" in texts and "80 GB" not in texts
    labels = [text.get_text() for text in shown[0].legends[0].get_texts()]
    assert "logits" in labels and "keys and values" not in labels
    total = sum(plan.total for plan in plans.values()) / GIB
    assert sum(bar.get_width() for bar in axes.patches) == pytest.approx(total)


def test_measured_chart_draws_each_point_once(shown: list[Figure]) -> None:
    points = [
        Measured(Point("Qwen3-0.6B"), 2 * GIB, "cpu"),
        Measured(Point("Qwen3-0.6B", "generate"), GIB, "cpu"),
    ]
    plots.measured_chart(points, "Close")
    lines = shown[0].axes[0].lines[1:]
    drawn = [tuple(xy) for line in lines for xy in line.get_xydata()]
    assert drawn == [(p.peak / GIB, p.expected / GIB) for p in points]
