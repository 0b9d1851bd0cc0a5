"""How sure a score is: intervals, a paired test, and the gap closed.

scipy does the arithmetic. It is imported inside the functions, so that the
results table stays readable where scipy is not installed yet.
"""

from __future__ import annotations

from collections.abc import Sequence


class Scored:
    """Base of what has `n` problems, `correct` of them answered rightly."""

    n: int
    correct: int

    @property
    def accuracy(self) -> float:
        """Share of correct answers, 0 to 1."""
        return self.correct / self.n

    @property
    def interval(self) -> tuple[float, float]:
        """95% Wilson interval of the accuracy, 0 to 1."""
        return wilson_interval(self.correct, self.n)


def wilson_interval(
    correct: int, total: int, confidence: float = 0.95
) -> tuple[float, float]:
    """Interval of a proportion, both ends between 0 and 1.

    Wilson (1927), "Probable inference, the law of succession, and
    statistical inference": unlike the textbook interval it stays inside
    [0, 1] and is honest near 0% and 100%.

    Raises:
        ValueError: total < 1, or correct outside 0..total.
    """
    from scipy.stats import binomtest

    _require_count(correct, total)
    test = binomtest(int(correct), int(total))
    low, high = test.proportion_ci(confidence, method="wilson")
    return float(low), float(high)


def mcnemar(before: Sequence[bool], after: Sequence[bool]) -> float:
    """Exact two-sided p-value that two models are equally often right.

    before, after: right or wrong on the *same* problems in the same order.
    Only the problems on which the two disagree carry information: under the
    null hypothesis each falls to either side with probability 1/2
    (McNemar, 1947, in its exact binomial form). No disagreement gives 1.0.

    Raises:
        ValueError: the two do not have the same length, or are empty.
    """
    from scipy.stats import binomtest

    if len(before) != len(after) or len(before) == 0:
        raise ValueError(
            f"a paired test needs the same problems twice, but there are "
            f"{len(before)} results before and {len(after)} after: evaluate "
            f"both models on one list of problems."
        )
    pairs = [
        (bool(one), bool(two)) for one, two in zip(before, after, strict=True)
    ]
    won, lost = pairs.count((False, True)), pairs.count((True, False))
    if won + lost == 0:
        return 1.0
    return float(binomtest(won, won + lost, 0.5).pvalue)


def format_accuracy(correct: int, total: int) -> str:
    """An accuracy as the course writes it, with its n and its interval.

    format_accuracy(124, 300) gives "41.3% (124/300), 95% CI 35.9-47.0".
    The interval is Wilson's, in percent with one decimal.

    Raises:
        ValueError: total < 1, or correct outside 0..total.
    """
    low, high = wilson_interval(correct, total)
    return (
        f"{correct / total:.1%} ({correct}/{total}), "
        f"95% CI {100 * low:.1f}-{100 * high:.1f}"
    )


def gap_closed(before: float, after: float, teacher: float) -> float:
    """Share of the student's distance to its teacher that training closed.

    before, after, teacher: accuracies in the same unit. 0 is no progress, 1
    is the teacher's level; above 1 or below 0 is possible and kept.

    Raises:
        ValueError: the teacher is no better than the student was before.
    """
    if teacher <= before:
        raise ValueError(
            f"there is no gap to close: the teacher scores {teacher:g} and "
            f"the student {before:g} before training. Check that the two "
            f"are not swapped, or take a stronger teacher."
        )
    return (after - before) / (teacher - before)


def _require_count(correct: int, total: int) -> None:
    if total < 1 or not 0 <= correct <= total:
        raise ValueError(
            f"{correct} correct of {total} is not a score: count at least "
            f"one problem, and between 0 and {max(total, 0)} correct ones."
        )
