"""The worked cases of the exercises in notebook 00, and what they lead to."""

from helpers.evaluate import Evaluation
from helpers.exercises.check import Cases, exercise


def equal(a: str, b: str) -> bool:
    """The reference of 00.1."""
    return float(a.replace(",", "")) == float(b.replace(",", ""))


@exercise("00.1", hint="take the commas out, then compare as numbers",
          reference=equal)  # fmt: skip
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


def different(questions: list[str]) -> int:
    """The reference of 00.3."""
    return len(set(questions))


def colleagues_rows(evaluation: Evaluation) -> list[tuple[str, bool]]:
    """(question, right or wrong) of every answer, ten times over."""
    questions = [problem["question"] for problem in evaluation.problems]
    return 10 * list(zip(questions, evaluation.correct, strict=True))


@exercise("00.3", hint="a set holds nothing twice",
          reference=different)  # fmt: skip
def honest_n() -> Cases:
    """`honest_n(questions)`: how many different ones."""
    yield ["a", "b", "a"], 2
    yield ["a"] * 10, 1
    yield [], 0
