"""The planner widget of notebook 10."""

from __future__ import annotations

from helpers.widgets.memory import PlannerExplorer


def test_planner_moves_with_every_control() -> None:
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
        explorer.choices[name].value = value
        pictures.add(explorer.picture.value)
        totals.add(explorer.plan().total)
    assert len(pictures) == len(totals) == 9


def test_planner_names_the_card_or_the_reason() -> None:
    explorer = PlannerExplorer()
    assert "48 GB" in explorer.status.value
    explorer.choices["checkpointing"].value = True
    assert " 8 GB" in explorer.status.value
    explorer.choices["method"].value = "logit"
    assert "vocabularies differ" in explorer.status.value
    assert explorer.picture.value == b""  # not the plan before
    explorer.choices["model"].value = "Qwen3-32B"
    assert "none here" in explorer.status.value
    assert explorer.still().data == explorer.picture.value
