"""What models weigh and what a process has used."""

from __future__ import annotations

import hashlib
import sys
from typing import Any

import torch


def parameter_counts(model: Any) -> dict[str, int]:
    """Trainable and total parameters; a 4-bit byte counts as two."""
    counts = {"trainable": 0, "total": 0}
    for parameter in model.parameters():
        packed = type(parameter).__name__ == "Params4bit"
        size = parameter.numel() * (2 if packed else 1)
        counts["total"] += size
        counts["trainable"] += size if parameter.requires_grad else 0
    return counts


def weight_bytes(model: Any) -> int:
    """Bytes that the parameters occupy as they are stored."""
    return sum(p.numel() * p.element_size() for p in model.parameters())


def weights_hash(model: Any) -> str:
    """Of the first 64 values of each parameter: training changes them all."""
    digest = hashlib.sha256()
    for name, parameter in model.named_parameters():
        some = parameter.detach().flatten()[:64].float().cpu()
        digest.update(name.encode() + some.numpy().tobytes())
    return digest.hexdigest()


def peak_memory_mb() -> float:
    """Peak memory of this process in MiB (of the GPU where there is one)."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**20
    try:
        import resource
    except ImportError:  # Windows
        import psutil

        return psutil.Process().memory_info().peak_wset / 2**20
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)
