"""Notebook 01 in `full`, by the planner's arithmetic: 24 GB hold it (estimated)."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest

from helpers.profiles import PROFILES, ROOT
from helpers.scale.planner import GIB, plan_memory, weight_bytes
from helpers.scale.shapes import Shape, load_shape

FULL = PROFILES["full"]
LIBRARIES = 1  # GiB


def shape_of(model: str) -> Shape:
    return load_shape(Path(model).name)


def peak(batch: int, length: int) -> float:
    """GiB while all of Gemma is trained and both Qwens wait beside it.

    Activations and logits are the planner's, all logits at once and without
    checkpointing. Its weights are not: it plans float32 training, and the
    notebook trains in bfloat16 (12 bytes a parameter: weights, gradients,
    Adam's two moments, and what its step keeps for a moment).
    """
    gemma = shape_of(FULL.student)
    plan = plan_memory(
        gemma, bits=16, rank=0, batch=batch, length=length,
        chunk=batch * length, checkpointing=False,
    )  # fmt: skip
    beside = weight_bytes(shape_of(FULL.kd_teacher), 4)
    beside += weight_bytes(shape_of(FULL.kd_student), 16)
    trained = 12 * gemma.parameters
    needed = plan.activations + plan.logits + beside + trained
    return needed / GIB + LIBRARIES


def test_theory_sizes_of_full_fit_24_gb() -> None:
    assert peak(FULL.theory_batch, FULL.analysis_length) < 24


def test_theory_sizes_of_before_did_not_fit() -> None:
    assert peak(FULL.batch_size // 2, FULL.max_length) > 24


@pytest.mark.parametrize("field", ["theory_batch", "analysis_length"])
def test_notebook_01_takes_its_sizes_from_the_profile(field: str) -> None:
    path = ROOT / "notebooks" / "01_distillation_theory.ipynb"
    cells = nbformat.read(path, as_version=4).cells
    code = "\n".join(c.source for c in cells if c.cell_type == "code")
    assert f"profile.{field}" in code and "batch_size //" not in code


def test_theory_sizes_of_mini_cut_nothing() -> None:
    mini = PROFILES["mini"]
    assert mini.theory_batch == mini.batch_size // 2
    assert mini.analysis_length == mini.max_length
