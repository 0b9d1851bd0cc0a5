"""The layer-map widget of notebook 06."""

from __future__ import annotations

import pytest
import torch

from helpers.widgets.features import LayerMapExplorer

GRID = torch.tensor(
    [
        [0.9, 0.1, 0.1, 0.1, 0.1],
        [0.2, 0.8, 0.3, 0.1, 0.0],
        [0.9, 0.3, 0.4, 0.7, 0.2],
        [0.1, 0.1, 0.2, 0.6, 0.5],
    ]
)


def test_explorer_redraws_for_every_map() -> None:
    explorer = LayerMapExplorer(GRID, (128, 192))
    pictures = set()
    for name in ("last", "even", "cka", "reversed"):
        explorer.choice.value = name
        pictures.add(explorer.picture.value)
        assert explorer.still().data == explorer.picture.value
    assert len(pictures) == 4
    assert all(picture[:4] == b"\x89PNG" for picture in pictures)


@pytest.mark.parametrize(
    ("name", "pairs", "parameters", "mean"),
    [
        ("last", ((3, 4),), "24,576", "0.50"),
        ("even", ((1, 1), (2, 3), (3, 4)), "73,728", "0.67"),
        ("cka", ((1, 1), (2, 3), (3, 3)), "73,728", "0.70"),
        ("reversed", ((1, 4), (2, 3), (3, 1)), "73,728", "0.27"),
    ],
)
def test_explorer_says_what_a_map_is(name, pairs, parameters, mean) -> None:
    explorer = LayerMapExplorer(GRID, (128, 192), name)
    assert explorer.pairs() == pairs
    assert parameters in explorer.status.value
    assert explorer.status.value.endswith(mean)
