"""The arms of helpers.rebuild.bench: each is run in a process of its own."""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import psutil
import torch

from helpers.distill import Lesson, Objective, pair_profile
from helpers.features import FeatureTerm
from helpers.logit_cache import write_shard
from helpers.losses import chunked_kd_loss, kd_loss
from helpers.models import (
    add_lora,
    load_student,
    load_teacher,
    peak_memory_mb,
    reset_peak,
)
from helpers.profiles import get_profile, set_seed
from helpers.rebuild.experiments import budget_traces, cached
from helpers.widgets.training import train_timed

VOCABULARY, POSITIONS, WIDTH, CHUNK = 262_144, 512, 128, 64
TOP_K, STEPS, ROWS, CACHED_POSITIONS = 64, 12, 192, 256


def loss_arm(*, chunked: bool) -> dict[str, float]:
    """Loss and gradient at V = 262,144, 512 positions, float32."""
    torch.manual_seed(7)
    heads = [torch.randn(VOCABULARY, WIDTH) * 0.3 for _ in range(2)]
    student, teacher = torch.randn(2, 1, POSITIONS, WIDTH).unbind()
    student.requires_grad_()
    mask = torch.ones(1, POSITIONS, dtype=torch.bool)
    reset_peak()
    before = psutil.Process().memory_info().rss / 2**20
    seconds = []
    for _ in range(2):
        started = time.perf_counter()
        if chunked:
            loss = chunked_kd_loss(
                student, heads[0], teacher, heads[1], mask, chunk=CHUNK
            )
        else:
            logits = student @ heads[0].T, teacher @ heads[1].T
            loss = kd_loss(*logits, mask)
            del logits
        (gradient,) = torch.autograd.grad(loss, student)
        seconds.append(time.perf_counter() - started)
    return {
        "loss": loss.item(),
        "gradient": gradient.norm().item(),
        "seconds": min(seconds),
        "mb": peak_memory_mb() - before,
    }


def bytes_arm() -> dict[str, float]:
    """Bytes a token: of a shard of the cache as a file, of dense float16."""
    torch.manual_seed(7)
    logprobs = torch.randn(CACHED_POSITIONS, VOCABULARY).log_softmax(-1)
    best = logprobs.topk(TOP_K)
    tensors = {
        "ids": best.indices.to(torch.int32),
        "logprobs": best.values.half(),
        "lengths": torch.tensor([CACHED_POSITIONS]),
    }
    with tempfile.TemporaryDirectory() as name:
        size = write_shard(Path(name), 0, tensors, {}).stat().st_size
    return {"cached": size / CACHED_POSITIONS, "dense": 2 * VOCABULARY}


def step_arm(
    *, is_cached: bool = False, kind: str | None = None
) -> dict[str, float]:
    """Median seconds of a logit step of the mini pair, and of the teacher's
    forward pass over the same batches where the teacher is in memory.

    is_cached: the teacher's logits come from disk. kind: every block's states
    are imitated as well, by this kind of loss.
    """
    set_seed(7)
    profile = replace(pair_profile(get_profile("mini", {})), epochs=1)
    features = FeatureTerm("even", 0.1, kind) if kind else None
    teacher = load_teacher(profile)
    student = add_lora(load_student(profile), rank=profile.rank)
    lesson = Lesson(
        budget_traces(profile, ROWS), teacher, Objective(features=features)
    )
    if is_cached:
        lesson = cached(lesson, student, profile=profile, top_k=TOP_K)
    trainer = lesson.trainer(student, profile=profile, seed=7)
    figures = {"seconds": median(train_timed(trainer)[:STEPS])}
    if not is_cached:
        figures["teacher"] = forward_seconds(trainer, teacher)
    return figures


@torch.no_grad()
def forward_seconds(trainer: Any, teacher: Any) -> float:
    """Median seconds of the teacher's forward pass, logits and all."""
    seconds = []
    for batch in list(trainer.get_train_dataloader())[:STEPS]:
        inputs = batch["input_ids"], batch["attention_mask"]
        started = time.perf_counter()
        teacher.model(*inputs)
        seconds.append(time.perf_counter() - started)
    return median(seconds)


ARMS: dict[str, Callable[[], dict[str, float]]] = {
    "naive": partial(loss_arm, chunked=False),
    "chunked": partial(loss_arm, chunked=True),
    "bytes": bytes_arm,
    "online": step_arm,
    "cached": partial(step_arm, is_cached=True),
    "states": partial(step_arm, kind="cosine"),
    "relations": partial(step_arm, kind="relation"),
}


if __name__ == "__main__":
    print(json.dumps(ARMS[sys.argv[1]]()))
