"""What test_evaluate.py asks here, and in processes that it kills or pairs."""

import sys
from dataclasses import replace
from pathlib import Path

import torch

from helpers.evaluate import Evaluation, evaluate
from helpers.models import load_teacher
from helpers.problems import load_problems
from helpers.profiles import PROFILES


def sample(folder: str, path: Path | None) -> Evaluation:
    """Twelve sampled answers, two at a time."""
    torch.set_num_threads(1)
    profile = replace(PROFILES["mini"], teacher=folder, max_new_tokens=100)
    return evaluate(
        load_teacher(profile),
        load_problems("mini", "validation", limit=12),
        profile=profile,
        mode="teacher",
        sampling=profile.sampling(7),
        batch_size=2,
        path=path,
    )


if __name__ == "__main__":
    sample(sys.argv[1], Path(sys.argv[2]))
