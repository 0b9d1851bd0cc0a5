"""What models weigh and what a process has used."""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import sys
from pathlib import Path
from typing import Any

import torch

PROCESS = Path("/proc/self")  # Linux only


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
    """Peak since `reset_peak` in MiB (of the GPU where there is one)."""
    return peak_in_use() / 2**20


def reset_peak() -> bool:
    """Forget the peak so far; what is in use stays in use, and counts.

    False where the process's peak cannot be forgotten (macOS, Windows, some
    containers): `peak_in_use` is then the peak since the process began.
    """
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
        return True
    trim()
    try:
        (PROCESS / "clear_refs").write_text("5")
    except OSError:
        return False
    return True


def peak_in_use() -> int:
    """The highest number of bytes in use since `reset_peak`."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    try:
        return process_bytes("VmHWM")
    except OSError:
        return peak_of_process()


def peak_of_process() -> int:
    """The highest number of bytes since the process began, anywhere."""
    try:
        import resource
    except ImportError:  # Windows
        import psutil

        return psutil.Process().memory_info().peak_wset
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak * (1 if sys.platform == "darwin" else 2**10)


def process_bytes(field: str) -> int:
    """A field of /proc/self/status, in bytes; OSError where it is not."""
    path = PROCESS / "status"
    for line in path.read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    raise OSError(f"no {field} in {path}")


def trim() -> None:
    """Give freed memory back to the system, where glibc can."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)
