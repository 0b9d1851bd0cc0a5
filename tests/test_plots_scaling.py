"""The figures and the planner widget of notebook 10."""

from __future__ import annotations

from dataclasses import replace

import pytest
from matplotlib.figure import Figure

from helpers.plots import memory as plots_scaling
from helpers.rebuild.memory_points import Measured, Point
from helpers.scale.planner import GIB, plan_memory
from helpers.scale.shapes import load_shape
from helpers.widgets.memory import PlannerExplorer

PLAN = plan_memory(load_shape("gemma-3-1b-it"), length=1024)


def draw(monkeypatch: pytest.MonkeyPatch, plans: dict) -> Figure:
    """The figure behind `plans_png`."""
    drawn: list[Figure] = []
    real = plots_scaling.to_png

    def keep(fill, *, size):
        def wrapped(figure: Figure) -> None:
            fill(figure)
            drawn.append(figure)

        return real(wrapped, size=size)

    monkeypatch.setattr(plots_scaling, "to_png", keep)
    png = plots_scaling.plans_png(plans, "Mostly activations")
    assert png.startswith(b"\x89PNG")
    return drawn[0]


def test_parts_of_a_plan_add_up_to_it():
    parts = plots_scaling.parts_of(PLAN)
    total = sum(size for _, size, _ in parts)
    assert total == pytest.approx(PLAN.total / GIB)
    assert "keys and values" not in [label for label, *_ in parts]


def test_plans_are_bars_with_the_cards_that_matter(monkeypatch):
    figure = draw(
        monkeypatch, {"one": PLAN, "no logits": replace(PLAN, logits=0)}
    )
    (axes,) = figure.axes
    widths = [patch.get_width() for patch in axes.patches]
    parts = plots_scaling.parts_of(PLAN)
    assert widths[: len(parts)] == pytest.approx(
        [size for _, size, _ in parts]
    )
    texts = [text.get_text() for text in axes.texts]
    assert f" {PLAN.total / GIB:.1f} GiB" in texts
    assert "8 GB" in texts and "80 GB" not in texts
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert len(labels) == len(set(labels)) == len(parts)


def test_measured_chart_draws_each_point_once(shown: list[Figure]):
    points = [
        Measured(Point("Qwen3-0.6B"), 2 * GIB, "cpu"),
        Measured(Point("Qwen3-0.6B", "generate"), GIB, "cpu"),
    ]
    plots_scaling.measured_chart(points, "Close")
    (axes,) = shown[0].axes
    drawn = [
        (x, y)
        for line in axes.lines[1:]
        for x, y in zip(line.get_xdata(), line.get_ydata(), strict=True)
    ]
    assert drawn == [(p.peak / GIB, p.expected / GIB) for p in points]


def test_planner_moves_with_every_control():
    explorer = PlannerExplorer()
    pictures, totals = {explorer.picture.value}, {explorer.plan().total}
    for name, value in (
        ("checkpointing", True),
        ("length", 1024),
        ("batch", 1),
        ("rank", 64),
        ("bits", 16),
        ("model", "Qwen3-0.6B"),
        ("method", "logit_chunked"),
        ("teacher", "Qwen3-8B"),
    ):
        explorer.controls[name].value = value
        pictures.add(explorer.picture.value)
        totals.add(explorer.plan().total)
    assert len(pictures) == len(totals) == 9


def test_planner_names_the_card_or_the_reason():
    explorer = PlannerExplorer()
    assert "a 48 GB card" in explorer.status.value
    explorer.controls["checkpointing"].value = True
    assert "an 8 GB card" in explorer.status.value
    explorer.controls["method"].value = "logit"
    assert "vocabularies differ" in explorer.status.value
    assert explorer.picture.value == b""  # not the plan before
    explorer.controls["model"].value = "Qwen3-32B"
    assert "no single card here" in explorer.status.value
    assert explorer.still().data == explorer.picture.value
