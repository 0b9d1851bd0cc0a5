"""Estimated hours, by hand."""

import pytest

from helpers.scale.costs import (
    BANDWIDTH_SHARE,
    CARDS,
    COMPUTE_SHARE,
    cache_moves,
    generation_seconds,
    training_seconds,
)
from helpers.scale.planner import weight_bytes
from helpers.scale.shapes import load_shape

SMALL, QWEN = load_shape("gemma-3-270m-it"), load_shape("Qwen3-0.6B")
NAMED = {card.name: card for card in CARDS}
L4 = NAMED["L4"]


def test_cards_know_an_h100():
    card = NAMED["H100 80GB"]
    assert card.gib == 80 and card.bandwidth > 3000 and card.bfloat16


def test_training_seconds_by_hand():
    seconds = training_seconds(SMALL, 1000, L4)
    passes = 4 * (SMALL.linear + SMALL.embedding) * 1000  # its head is tied
    assert seconds == pytest.approx(passes / (COMPUTE_SHARE * 121e12))
    again = training_seconds(SMALL, 1000, L4, checkpointing=True)
    assert again == pytest.approx(1.5 * seconds)


def test_generation_seconds_weights_are_read_once_a_step():
    one, eight = (
        generation_seconds(QWEN, 8, 100, L4, batch=batch, server=True)
        for batch in (1, 8)
    )
    assert 6 < one / eight < 8  # eight rows in one step, with eight caches
    nine = generation_seconds(QWEN, 9, 100, L4, batch=8, server=True)
    assert nine == pytest.approx(2 * eight)  # a ninth answer: a second batch


def test_generation_seconds_count_every_move_of_the_cache():
    """12 rows of the 4B teacher; the longest has 4,000 tokens: 39 GB a step.

    2,000 of them on average, and each byte of theirs is moved 11 times.
    """
    teacher = load_shape("Qwen3-4B-Thinking-2507")
    assert cache_moves(teacher) == 11  # 4 query heads share a key
    assert cache_moves(load_shape("SmolLM2-135M-Instruct")) == 9
    card = NAMED["RTX 4090"]
    step = generation_seconds(teacher, 12, 4000, card, batch=12) / 4000
    moved = step * BANDWIDTH_SHARE * card.bandwidth * 1e9
    assert moved - weight_bytes(teacher, 16) == pytest.approx(39e9, rel=0.01)
