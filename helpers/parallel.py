"""Several processes on one job: who am I, who writes, wait for the others.

`accelerate launch -m helpers ...` starts one process a GPU, on one machine or
many, and names each in the environment; `torchrun` does on CPUs as well. All
of them compute; only the first one writes what they share.
"""

from __future__ import annotations

import os
from datetime import timedelta


def rank() -> int:
    """This process's number, 0 to world() - 1."""
    return int(os.environ.get("RANK", 0))


def world() -> int:
    """How many processes share the job; 1 without a launcher."""
    return int(os.environ.get("WORLD_SIZE", 1))


def first() -> bool:
    """Whether this process writes what all of them share."""
    return rank() == 0


def device() -> str:
    """Where this process loads its models: a GPU of its own, or the CPU."""
    import torch

    if not torch.cuda.is_available():
        return "cpu"
    return f"cuda:{os.environ.get('LOCAL_RANK', 0)}"


def sharded() -> bool:
    """Whether the launcher was told to split the model itself (FSDP)."""
    return os.environ.get("ACCELERATE_USE_FSDP", "").lower() == "true"


def wait() -> None:
    """Wait until every process has come here; at once if there is one."""
    if world() > 1:
        import torch
        from accelerate import PartialState

        # The default, 10 or 30 minutes, is less than one process may be ahead.
        state = PartialState(
            cpu=not torch.cuda.is_available(), timeout=timedelta(days=7)
        )
        state.wait_for_everyone()
