"""The figures and the layer-map widget of notebook 06."""

from __future__ import annotations

import re

import pytest
import torch
from matplotlib.figure import Figure

from helpers.plots import features as plots_features
from helpers.widgets.features import LayerMapExplorer

GRID = torch.tensor(
    [
        [0.9, 0.1, 0.1, 0.1, 0.1],
        [0.2, 0.8, 0.3, 0.1, 0.0],
        [0.9, 0.3, 0.4, 0.7, 0.2],
        [0.1, 0.1, 0.2, 0.6, 0.5],
    ]
)


def frames(axes) -> set[tuple[int, int]]:
    """The framed cells as (student, teacher)."""
    found = [patch.get_xy() for patch in axes.patches]
    return {(round(y + 0.44), round(x + 0.46)) for x, y in found}


def test_layer_grids_write_numbers_and_frame_pairs(
    shown: list[Figure],
) -> None:
    grids = {"before": GRID, "after": GRID}
    plots_features.layer_grids(grids, "Alike", pairs=((1, 1), (3, 4)))
    first, second = shown[0].axes
    assert [axes.get_title("left") for axes in (first, second)] == list(grids)
    texts = [text.get_text() for text in first.texts]
    assert len(texts) == 20 and texts[:2] == ["0.90", "0.10"]
    assert frames(first) == frames(second) == {(1, 1), (3, 4)}
    assert first.get_xlabel() == "teacher's layer"


def test_norms_have_a_line_a_model(shown: list[Figure]) -> None:
    plots_features.norms_by_layer(
        {"teacher": [1.0, 2.0], "student": [3.0, 4.0]}, "Longer"
    )
    (axes,) = shown[0].axes
    assert [line.get_label() for line in axes.lines] == ["teacher", "student"]
    assert list(axes.lines[1].get_ydata()) == [3.0, 4.0]


def test_curves_draw_every_run(shown: list[Figure]) -> None:
    plots_features.curves(
        {"a": [(0, 2.0), (4, 1.0)], "b": [(0, 2.0), (4, 0.5)]},
        "Faster",
        xlabel="step",
        ylabel="loss",
    )
    (axes,) = shown[0].axes
    assert list(axes.lines[1].get_ydata()) == [2.0, 0.5]
    assert axes.get_yscale() == "log"


def test_explorer_redraws_for_every_map() -> None:
    explorer = LayerMapExplorer(GRID, (128, 192))
    seen = {}
    for name in ("last", "even", "cka", "reversed"):
        explorer.choice.value = name
        seen[name] = explorer.picture.value
        assert explorer.picture.value[:4] == b"\x89PNG"
    assert len(set(seen.values())) == 4


@pytest.mark.parametrize(
    ("name", "pairs", "words"),
    [
        ("last", ((3, 4),), "24,576 projector parameters, mean CKA 0.50"),
        ("even", ((1, 1), (2, 3), (3, 4)), "73,728 .* mean CKA 0.67"),
        ("cka", ((1, 1), (2, 3), (3, 3)), "mean CKA 0.70"),
        ("reversed", ((1, 4), (2, 3), (3, 1)), "mean CKA 0.27"),
    ],
)
def test_explorer_says_what_a_map_is(name, pairs, words) -> None:
    explorer = LayerMapExplorer(GRID, (128, 192), name)
    assert explorer.pairs() == pairs
    assert re.search(words, explorer.words())
    assert explorer.status.value == explorer.words()
    assert explorer.still().data[:4] == b"\x89PNG"
