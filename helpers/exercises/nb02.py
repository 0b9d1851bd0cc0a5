"""The worked cases of the exercises. A long list may go on in a module
named exercise_cases_05.py or the like: every one of them is read.
"""

from __future__ import annotations

from collections.abc import Iterator

from helpers.exercises.check import Case, exercise


@exercise("00.1", hint="take the commas out, then compare as numbers")
def is_equal_answer() -> Iterator[Case]:
    """`is_equal_answer(a, b)`: do two written numbers mean the same?"""
    yield ("1,200", "1200"), True
    yield ("18.00", "18"), True
    yield ("62", "72"), False
    yield ("-4", "4"), False


@exercise("00.2", hint="what was won, divided by what there was to win")
def share_closed() -> Iterator[Case]:
    """`share_closed(before, after, teacher)`, three accuracies."""
    yield (0.4, 0.7, 0.9), 0.6
    yield (0.4, 0.4, 0.9), 0.0
    yield (0.25, 1.0, 1.0), 1.0
    yield (0.5, 0.4, 0.9), -0.25


@exercise("02.1", hint="slots that are used hold len(part) * max(part) each")
def wasted_share() -> Iterator[Case]:
    """`wasted_share(lengths, batch)`: decode slots that yield no token."""
    yield ([10, 10, 10, 10], 2), 0.0
    yield ([10, 30], 2), 1 / 3
    yield ([10, 30, 20], 2), 0.25
    yield ([10, 30, 20], 1), 0.0


@exercise("02.2", hint='text.partition("</think>") says what it found')
def split_thought() -> Iterator[Case]:
    """`split_thought(text)`: (thought, answer, closed)."""
    yield (
        "<think>\n2 + 2 = 4.\n</think>\n\nIt is 4.",
        (
            "2 + 2 = 4.",
            "It is 4.",
            True,
        ),
    )
    yield "2 + 2 = 4.\n</think>\n\nIt is 4.", ("2 + 2 = 4.", "It is 4.", True)
    yield "<think>\n2 + 2", ("2 + 2", "", False)
    yield "<think>\n\n</think>\n\nIt is 4.", ("", "It is 4.", True)


@exercise("02.3", hint="four conditions, all of them must hold")
def worth_training() -> Iterator[Case]:
    """`worth_training(row, max_tokens)`: keep this row of a trace file?"""
    sound = {
        "qwen3_answer": "<think>\n2 + 2 = 4.\n</think>\n\nIt is 4.",
        "finish_reason": "stop",
        "completion_tokens": 20,
        "correct": True,
    }
    cut = {"finish_reason": "length", "qwen3_answer": "<think>\n2 + 2"}
    yield (sound, 20), True
    yield ({**sound, "correct": False}, 20), False
    yield (sound, 19), False
    yield ({**sound, **cut, "correct": False}, 20), False
    yield ({**sound, "finish_reason": "length"}, 20), False
    yield ({**sound, "qwen3_answer": "It is 4."}, 20), False
