"""How far a model's confidence is from how often it is right."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

BINS = 10


def tenths(sure: Tensor, right: Tensor) -> Tensor:
    """Sums (3, BINS) over tokens, by tenths of the confidence `sure`.

    sure, right: (tokens,), the likeliest token's probability and whether it
    is the text's. The rows: tokens, their confidence, right ones.
    """
    places = (sure * BINS).long().clamp(max=BINS - 1)
    rows = torch.stack([torch.ones_like(sure), sure, right.to(sure)])
    empty = torch.zeros(3, BINS, dtype=torch.float64)
    return empty.index_add_(1, places.cpu(), rows.double().cpu())


def calibration_error(bins: Any) -> float:
    """The expected one, 0 to 1, of the sums of `tenths`.

    Guo et al. 2017 (arXiv:1706.04599), equation 3.
    """
    count, sure, right = bins
    return float(abs(sure - right).sum() / count.sum())
