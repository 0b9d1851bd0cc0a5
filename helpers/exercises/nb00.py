"""The exercises of notebook 00, and what they lead to."""

from helpers.evaluate import Evaluation
from helpers.exercises.check import exercise


@exercise("00.1", "take the commas out, then compare as numbers",
          (("1,200", "1200"), True),
          (("18.00", "18"), True),
          (("62", "72"), False),
          (("-4", "4"), False))  # fmt: skip
def is_equal_answer(a: str, b: str) -> bool:
    """Do two written numbers mean the same?"""
    return float(a.replace(",", "")) == float(b.replace(",", ""))


@exercise("00.2", "what was won, divided by what there was to win",
          ((0.4, 0.7, 0.9), 0.6),
          ((0.4, 0.4, 0.9), 0.0),
          ((0.25, 1.0, 1.0), 1.0),
          ((0.5, 0.4, 0.9), -0.25))  # fmt: skip
def share_closed(before: float, after: float, teacher: float) -> float:
    """The closed share of the gap between three accuracies."""
    return (after - before) / (teacher - before)


def colleagues_rows(evaluation: Evaluation) -> list[tuple[str, bool]]:
    """(question, right or wrong) of every answer, ten times over."""
    questions = [problem["question"] for problem in evaluation.problems]
    return 10 * list(zip(questions, evaluation.correct, strict=True))


@exercise("00.3", "a set holds nothing twice",
          (["a", "b", "a"], 2),
          (["a"] * 10, 1),
          ([], 0))  # fmt: skip
def honest_n(questions: list[str]) -> int:
    """How many different ones."""
    return len(set(questions))
