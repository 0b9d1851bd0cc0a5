"""The worked cases of the exercises in notebooks 03 and 04."""

from __future__ import annotations

from collections.abc import Iterator

from helpers.exercises.check import Case, exercise


@exercise("03.1", hint="4 bits for the code, plus a scale shared by a block")
def bits_per_weight() -> Iterator[Case]:
    """`bits_per_weight(block, scale_bits)`: codes and scales together."""
    yield (64, 32), 4.5
    yield (64, 8), 4.125
    yield (32, 16), 4.5


@exercise("03.2", hint="A has rank * in numbers, B has out * rank")
def lora_size() -> Iterator[Case]:
    """`lora_size(shapes, rank)`: trainable parameters of the adapters."""
    yield ([(128, 384)], 8), 4096
    yield ([(128, 128), (32, 128)], 1), 416
    yield ([], 16), 0


@exercise("03.3", hint="-100 once per prompt id, then the answer, then end")
def mask_labels() -> Iterator[Case]:
    """`mask_labels(prompt_ids, answer_ids, end_id)`: labels of one row."""
    yield ([2, 5, 9], [7, 8], 1), [-100, -100, -100, 7, 8, 1]
    yield ([4], [], 1), [-100, 1]


@exercise("04.1", hint="p plus or minus 1.96 * sqrt(p * (1 - p) / n)")
def half_width() -> Iterator[Case]:
    """`half_width(p, n)`: the plain 95% interval's half width."""
    yield (0.5, 100), 0.098, 1e-3
    yield (0.8, 600), 0.032, 1e-3
    yield (0.5, 1319), 0.02698, 1e-3


@exercise("04.2", hint="count only the pairs in which the two disagree")
def discordant() -> Iterator[Case]:
    """`discordant(before, after)`: (only before right, only after right)."""
    yield ([True, True, False], [True, False, True]), (1, 1)
    yield ([False] * 4, [True] * 4), (0, 4)
    yield ([True, False], [True, False]), (0, 0)
