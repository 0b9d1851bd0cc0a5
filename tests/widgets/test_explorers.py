"""The choosers of layer maps, memory and seeds; the coloured strip."""

import numpy as np
import pytest
import torch

from helpers.evaluate import compare_arms
from helpers.widgets.features import LayerMapExplorer
from helpers.widgets.memory import PlannerExplorer
from helpers.widgets.power import PowerExplorer, Spread
from helpers.widgets.token_strip import token_strip_html

GRID = torch.tensor([[9, 1, 1, 1, 1], [2, 8, 3, 1, 0],
                     [9, 3, 4, 7, 2], [1, 1, 2, 6, 5]]) / 10  # fmt: skip
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
    choices = {"checkpointing": True, "length": 1024, "batch": 1, "rank": 64}
    choices |= {"bits": 16, "model": "Qwen3-0.6B", "method": "logit_chunked"}
    for name, value in (choices | {"teacher": "Qwen3-8B"}).items():
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


def test_spread_finds_the_variances_that_it_was_made_of() -> None:
    normal = np.random.default_rng(5).normal
    gains = normal(0, 2, (200, 1)) + normal(0, 9, (1, 300))
    spread = Spread.of(gains + normal(0, 20, (200, 300)))
    assert spread.seeds**0.5 == pytest.approx(2, rel=0.15)
    assert spread.problems**0.5 == pytest.approx(9, rel=0.15)
    assert spread.rest**0.5 == pytest.approx(20, rel=0.05)


def test_detectable_gain_is_found_in_about_four_of_five_experiments() -> None:
    spread, found = Spread(4.0, 25.0, 900.0), 0
    normal = np.random.default_rng(6).normal
    gain = float(spread.detectable(5, 400))
    for _ in range(200):
        noise = normal(0, 2, (5, 1)) + normal(0, 5, 400)
        gains = gain + noise + normal(0, 30, (5, 400))
        found += compare_arms(np.zeros_like(gains), gains)[-1] < 0.05
    assert 140 <= found <= 195  # `detectable` is a cautious answer


def test_power_explorer_asks_for_less_with_more_of_either() -> None:
    explorer = PowerExplorer(Spread(4.0, 25.0, 900.0))
    pictures = [explorer.picture.value]
    for control, value in ((explorer.seeds, 10), (explorer.problems, 3200)):
        control.value = value
        pictures.append(explorer.picture.value)
    assert len(set(pictures)) == 3
    gains = [explorer.spread.detectable(s, 400) for s in (3, 5, 10)]
    assert gains == sorted(gains, reverse=True)
    assert "10 seeds, 3,200 problems" in explorer.status.value
