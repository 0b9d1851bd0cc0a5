"""helpers.evaluate against hand-computed values."""

from __future__ import annotations

import math

import pytest

from helpers.evaluate import (
    format_accuracy,
    gap_closed,
    mcnemar,
    wilson_interval,
)


def _wilson_by_formula(correct: int, total: int, z: float) -> list[float]:
    share = correct / total
    centre = share + z * z / (2 * total)
    spread = z * math.sqrt(
        share * (1 - share) / total + z * z / (4 * total * total)
    )
    scale = 1 + z * z / total
    return [(centre - spread) / scale, (centre + spread) / scale]


@pytest.mark.parametrize(
    ("correct", "total"), [(124, 300), (0, 10), (10, 10), (1, 1), (5, 8)]
)
def test_wilson_interval_equals_its_formula(correct: int, total: int) -> None:
    expected = _wilson_by_formula(correct, total, 1.959963984540054)
    found = wilson_interval(correct, total)
    assert found == pytest.approx(expected, abs=1e-12)


def test_wilson_interval_published_value() -> None:
    low, high = wilson_interval(81, 263)  # Newcombe (1998), table I
    assert (round(low, 4), round(high, 4)) == (0.2553, 0.3662)


def test_wilson_interval_widens_with_confidence() -> None:
    narrow = wilson_interval(124, 300, confidence=0.8)
    wide = wilson_interval(124, 300, confidence=0.99)
    assert wide[0] < narrow[0] < 124 / 300 < narrow[1] < wide[1]


@pytest.mark.parametrize(("correct", "total"), [(0, 0), (-1, 5), (6, 5)])
def test_wilson_interval_rejects_impossible_counts(
    correct: int, total: int
) -> None:
    with pytest.raises(ValueError, match="is not a score"):
        wilson_interval(correct, total)


def test_mcnemar_hand_computed() -> None:
    # 1 lost, 5 won: 2 * (C(6,0) + C(6,1)) / 2**6 = 14 / 64
    before = [True] + [False] * 5 + [True] * 20
    after = [False] + [True] * 5 + [True] * 20
    assert mcnemar(before, after) == pytest.approx(14 / 64, abs=1e-12)


def test_mcnemar_is_symmetric_and_ignores_agreement() -> None:
    before = [True, False, False, False, True]
    after = [False, True, True, True, True]
    assert mcnemar(before, after) == mcnemar(after, before)
    longer = mcnemar(before + [False] * 50, after + [False] * 50)
    assert longer == mcnemar(before, after) == pytest.approx(10 / 16)


def test_mcnemar_without_disagreement_is_one() -> None:
    assert mcnemar([True, False], [True, False]) == 1.0


def test_mcnemar_clear_gain_is_significant() -> None:
    assert mcnemar([False] * 20, [True] * 20) == pytest.approx(2 / 2**20)


@pytest.mark.parametrize(("before", "after"), [([True], []), ([], [])])
def test_mcnemar_rejects_unpaired_results(
    before: list[bool], after: list[bool]
) -> None:
    with pytest.raises(ValueError, match="one list of problems"):
        mcnemar(before, after)


def test_format_accuracy_course_style() -> None:
    expected = "41.3% (124/300), 95% CI 35.9-47.0"
    assert format_accuracy(124, 300) == expected


def test_gap_closed_values() -> None:
    assert gap_closed(0.4, 0.8, 0.9) == pytest.approx(0.8)
    assert gap_closed(40, 40, 90) == 0
    assert gap_closed(40, 30, 90) == pytest.approx(-0.2)
    assert gap_closed(40, 95, 90) > 1


def test_gap_closed_needs_a_better_teacher() -> None:
    with pytest.raises(ValueError, match="no gap to close"):
        gap_closed(0.9, 0.95, 0.9)
