"""How far a model's confidence is from how often it is right."""

from typing import Any

import numpy as np

BINS = 10


def tenths(sure: Any, right: Any) -> np.ndarray:
    """Sums (3, BINS) over tokens, by tenths of the confidence `sure`.

    sure, right: (tokens,), the likeliest token's probability and whether it
    is the text's. The rows: tokens, their confidence, right ones.
    """
    sure = np.asarray(sure)
    places = np.minimum((sure * BINS).astype(int), BINS - 1)
    rows = np.ones(len(sure)), sure, np.asarray(right)
    return np.array([np.bincount(places, row, BINS) for row in rows])


def calibration_error(bins: np.ndarray) -> float:
    """The expected one, 0 to 1, of the sums of `tenths`.

    Guo et al. 2017 (arXiv:1706.04599), equation 3.
    """
    count, sure, right = bins
    return float(abs(sure - right).sum() / count.sum())
