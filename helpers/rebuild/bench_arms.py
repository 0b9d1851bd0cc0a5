"""The arms of helpers.rebuild.bench: each is run in a process of its own."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

VOCABULARY, POSITIONS, WIDTH, CHUNK = 262_144, 512, 128, 64
TOP_K, STEPS, ROWS = 64, 12, 192


def loss_arm(folder: Path, *, chunked: bool) -> dict[str, Any]:
    """Loss and gradient at V = 262,144, 512 positions, float32."""
    import psutil
    import torch
    from safetensors.torch import save_file

    from helpers.losses import chunked_kd_loss, kd_loss
    from helpers.models import peak_memory_mb

    torch.manual_seed(7)
    heads = [torch.randn(VOCABULARY, WIDTH) * 0.3 for _ in range(2)]
    student, teacher = torch.randn(2, 1, POSITIONS, WIDTH).unbind()
    student.requires_grad_()
    mask = torch.ones(1, POSITIONS, dtype=torch.bool)
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
    name = "chunked" if chunked else "naive"
    save_file({"gradient": gradient}, folder / f"{name}.safetensors")
    return {
        "loss": loss.item(),
        "seconds": min(seconds),
        "mb": peak_memory_mb() - before,
    }


def step_arm(
    folder: Path, *, cached: bool = False, kind: str | None = None
) -> dict[str, Any]:
    """Median seconds of a logit step of the mini pair.

    cached: the teacher's logits come from disk. kind: every block's states
    are imitated as well, by this kind of loss. Online, the teacher's forward
    pass over the same batches is timed by itself too.
    """
    from dataclasses import replace

    from helpers.distill import Objective, pair_profile, pair_trainer
    from helpers.features import FeatureTerm
    from helpers.logit_cache import write_cache
    from helpers.models import add_lora, load_student, load_teacher
    from helpers.profiles import get_profile, set_seed
    from helpers.rebuild.experiments import budget_traces
    from helpers.widgets.training import train_timed

    set_seed(7)
    profile = pair_profile(get_profile("mini", {}))
    traces, cache = budget_traces(profile, ROWS), None
    teacher = load_teacher(profile)
    student = add_lora(load_student(profile), rank=profile.rank)
    if cached:
        cache = write_cache(
            traces,
            teacher,
            folder / "steps",
            tokenizer=student.tokenizer,
            k=TOP_K,
            max_length=profile.max_length,
        )
        teacher = replace(teacher, model=None)
    trainer = pair_trainer(
        traces,
        student,
        teacher,
        profile=profile,
        objective=Objective(
            features=FeatureTerm("even", 0.1, kind) if kind else None
        ),
        cache=cache,
        epochs=1,
    )
    seconds = median(train_timed(trainer)[:STEPS])
    if cached or kind:
        return {"seconds": seconds}
    return {"seconds": seconds, "teacher": forward_seconds(trainer, teacher)}


def forward_seconds(trainer: Any, teacher: Any) -> float:
    """Median seconds of the teacher's forward pass, logits and all."""
    import torch

    seconds = []
    for batch in list(trainer.get_train_dataloader())[:STEPS]:
        started = time.perf_counter()
        with torch.no_grad():
            teacher.model(
                input_ids=batch["input_ids"],
                attention_mask=batch["attention_mask"],
            )
        seconds.append(time.perf_counter() - started)
    return median(seconds)


ARMS: dict[str, Callable[[Path], dict[str, Any]]] = {
    "naive": lambda folder: loss_arm(folder, chunked=False),
    "chunked": lambda folder: loss_arm(folder, chunked=True),
    "online": step_arm,
    "cached": lambda folder: step_arm(folder, cached=True),
    "states": lambda folder: step_arm(folder, kind="cosine"),
    "relations": lambda folder: step_arm(folder, kind="relation"),
}


if __name__ == "__main__":
    print(json.dumps(ARMS[sys.argv[1]](Path(sys.argv[2]))))
