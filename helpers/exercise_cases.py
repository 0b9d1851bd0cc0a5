"""The worked cases of the exercises. A long list may go on in a module
named exercise_cases_05.py or the like: every one of them is read.
"""

from __future__ import annotations

from collections.abc import Iterator

from helpers.exercises import Case, exercise


@exercise("00.1", hint="take the commas out, then compare as numbers")
def is_equal_answer() -> Iterator[Case]:
    """`is_equal_answer(a, b)`: do two written numbers mean the same?"""
    yield ("1,200", "1200"), True
    yield ("18.00", "18"), True
    yield ("62", "72"), False
    yield ("-4", "4"), False
