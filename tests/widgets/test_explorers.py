"""The layer-map chooser, the memory planner and the coloured strip."""

from __future__ import annotations

import pytest
import torch

from helpers.widgets.features import LayerMapExplorer
from helpers.widgets.memory import PlannerExplorer
from helpers.widgets.token_strip import token_strip_html

GRID = torch.tensor(
    [
        [0.9, 0.1, 0.1, 0.1, 0.1],
        [0.2, 0.8, 0.3, 0.1, 0.0],
        [0.9, 0.3, 0.4, 0.7, 0.2],
        [0.1, 0.1, 0.2, 0.6, 0.5],
    ]
)
MAPS = {
    "last": (((3, 4),), "24,576", "0.50"),
    "cka": (((1, 1), (2, 3), (3, 3)), "73,728", "0.70"),
}


def test_layer_map_explorer_says_and_shows_every_map() -> None:
    explorer, pictures = LayerMapExplorer(GRID, (128, 192)), set()
    for name, (pairs, parameters, mean) in MAPS.items():
        explorer.choice.value = name
        assert explorer.pairs() == pairs
        assert parameters in explorer.status.value
        assert explorer.status.value.endswith(mean)
        pictures.add(explorer.still().data)
    assert len(pictures) == len(MAPS)


def test_planner_moves_with_every_control() -> None:
    explorer = PlannerExplorer()
    pictures = {explorer.picture.value}
    for name, value in (
        ("checkpointing", True), ("length", 1024), ("batch", 1),
        ("rank", 64), ("bits", 16), ("model", "Qwen3-0.6B"),
        ("method", "logit_chunked"), ("teacher", "Qwen3-8B"),
    ):  # fmt: skip
        explorer.choices[name].value = value
        pictures.add(explorer.picture.value)
    assert len(pictures) == 9


def test_planner_names_the_card_or_the_reason() -> None:
    explorer = PlannerExplorer()
    assert "48 GB" in explorer.status.value
    explorer.choices["method"].value = "logit"
    assert "vocabularies differ" in explorer.status.value
    assert explorer.picture.value == b""  # not the plan before


def test_token_strip_marks_what_is_trained() -> None:
    strip = token_strip_html(["<bos>", " six", "\n", "ty"], [0, 1, 0, 1]).data
    assert strip.count("<mark ") == 3  # two tokens and the legend
    assert "2 of 4 tokens (50.0%)" in strip
    assert "&lt;bos&gt;" in strip and "<bos>" not in strip
    assert "⏎</span><br>" in strip
    assert "color:inherit" in strip  # <mark> would force black on yellow
    with pytest.raises(ValueError):
        token_strip_html(["a", "b", "c"], [1, 0])
