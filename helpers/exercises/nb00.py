"""The worked cases of the exercises in notebook 00, and what they lead to."""

from helpers.exercises.check import Cases, exercise


@exercise("00.1", hint="take the commas out, then compare as numbers")
def is_equal_answer() -> Cases:
    """`is_equal_answer(a, b)`: do two written numbers mean the same?"""
    yield ("1,200", "1200"), True
    yield ("18.00", "18"), True
    yield ("62", "72"), False
    yield ("-4", "4"), False


def of_the_gap(before: float, after: float, teacher: float) -> float:
    """The reference of 00.2."""
    return (after - before) / (teacher - before)


@exercise("00.2", hint="what was won, divided by what there was to win",
          reference=of_the_gap)  # fmt: skip
def share_closed() -> Cases:
    """`share_closed(before, after, teacher)`, three accuracies."""
    yield (0.4, 0.7, 0.9), 0.6
    yield (0.4, 0.4, 0.9), 0.0
    yield (0.25, 1.0, 1.0), 1.0
    yield (0.5, 0.4, 0.9), -0.25
