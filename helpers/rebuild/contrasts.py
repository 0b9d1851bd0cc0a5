"""Means and paired differences of arms that were run with several seeds.

An arm is {seed: scores}, a score a problem or text: right or wrong in points
(100 and 0), or nats. Seeds are not problems: `compare_arms` clusters by both.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from helpers.evaluate import compare_arms

Seeds = Mapping[int, Any]  # seed to (problems,)
LEVEL = 0.05


@dataclass(frozen=True)
class Contrast:
    """What `second` gains over `first`, with its 95% interval.

    where: a budget, a split or a yardstick. p_value: Holm's (1979), for all
    of its family.
    """

    first: str
    second: str
    where: str
    gain: float
    low: float
    high: float
    p_value: float
    unit: str = "points"

    @property
    def sure(self) -> bool:
        return self.p_value < LEVEL

    @property
    def row(self) -> tuple[str, float, float, float, bool]:
        """For `plots.comparison.forest`."""
        label = f"{self.second}\nless {self.first}"
        return label, self.gain, self.low, self.high, self.sure

    def __str__(self) -> str:
        digits = 1 if self.unit == "points" else 2
        gain, low, high = (
            f"{value:+.{digits}f}"
            for value in (self.gain, self.low, self.high)
        )
        p_value = f"p = {self.p_value:.2g}"
        if self.p_value < 1e-4:  # the tail of a t says no more than that
            p_value = "p < 0.0001"
        return (
            f"{self.second} less {self.first}, {self.where}: {gain} "
            f"{self.unit} ({low} to {high}, {p_value})"
        )


def family(
    pairs: Iterable[tuple[str, str, str, Seeds, Seeds]], unit: str = "points"
) -> list[Contrast]:
    """Compare all pairs (first, second, where, scores of each) together.

    Each on the seeds that both have, or not at all.
    """
    rows = []
    for first, second, where, one, other in pairs:
        if seeds := sorted(one.keys() & other.keys()):
            sides = (
                [scores[seed] for seed in seeds] for scores in (one, other)
            )
            rows.append((first, second, where, *compare_arms(*sides)))
    order = sorted(range(len(rows)), key=lambda i: rows[i][-1])
    corrected, least = [0.0] * len(rows), 0.0
    for rank, place in enumerate(order):
        least = max(least, min(1.0, (len(rows) - rank) * rows[place][-1]))
        corrected[place] = least
    return [
        Contrast(*row[:-1], p_value=p_value, unit=unit)
        for row, p_value in zip(rows, corrected, strict=True)
    ]


def interval(scores: Seeds) -> tuple[float, float, float]:
    """Mean, low and high, for other seeds and other problems."""
    values = np.array([scores[seed] for seed in sorted(scores)], float)
    mean, low, high, _ = compare_arms(np.zeros_like(values), values)
    return mean, low, high


def residuals(sums: Any, sizes: Any) -> np.ndarray:
    """Sums over groups or texts of unlike sizes, as scores of one each.

    Their mean is the mean per problem or token; a large group is no outlier,
    it counts by how far it is from what its size foretells (the residuals of
    a ratio; Cochran 1977, chapter 6).
    """
    sums, sizes = np.asarray(sums, float), np.asarray(sizes, float)
    mean = sums.sum() / sizes.sum()
    return mean + (sums - mean * sizes) / sizes.mean()


def findings(contrasts: Sequence[Contrast]) -> str:
    """Which differences are told from 0, and which are not, in Markdown."""
    sure = [f"- {c}" for c in contrasts if c.sure]
    rest = [f"- {c}" for c in contrasts if not c.sure]
    return "\n".join(
        [
            f"**Told from 0** ({len(sure)} of {len(contrasts)}, corrected "
            f"together by Holm's method, p < {LEVEL}):\n",
            *(sure or ["- none"]),
            "\n**Not told from 0:**\n",
            *(rest or ["- none"]),
        ]
    )
