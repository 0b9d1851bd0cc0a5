"""One logit loss in four ways: all at once, our chunks, TRL's, Liger's."""

import json
import sys
import time
from functools import partial
from importlib.metadata import version
from importlib.util import find_spec

import psutil
import torch

from helpers import CourseError
from helpers.files.disk import write_atomic
from helpers.losses import chunked_kd_loss, kd_loss
from helpers.models import peak_memory_mb, reset_peak
from helpers.profiles import DATA
from helpers.rebuild.children import over, run_child, take_turns
from helpers.results import package_versions

LOSSES = DATA / "results" / "losses" / "cpu.json"
VOCABULARY, POSITIONS, WIDTH, CHUNK = 262_144, 512, 128, 64


def naive(student, head, teacher, teacher_head, mask) -> torch.Tensor:
    """All logits at once."""
    return kd_loss(student @ head.T, teacher @ teacher_head.T, mask)


def by_trl(student, head, teacher, teacher_head, mask) -> torch.Tensor:
    """What TRL's DistillationTrainer calls where its loss is chunked."""
    from trl.trainer.distillation_trainer import _chunked_divergence_loss

    models = student, teacher, head, teacher_head
    return _chunked_divergence_loss(*models, mask, beta=0.0, chunk_size=CHUNK)[
        0
    ]


def by_liger(student, head, teacher, teacher_head, mask) -> torch.Tensor:
    """Liger's, as plain PyTorch: its gradient is made on the way forward."""
    from liger_kernel.chunked_loss import LigerFusedLinearJSDLoss

    loss = LigerFusedLinearJSDLoss(
        weight_hard_loss=0.0,
        weight_soft_loss=1.0,
        beta=0.0,
        compiled=False,
        chunk_size=CHUNK,
    )
    labels = torch.where(mask, 1, -100)[0]  # which one does not matter
    return loss(student[0], head, teacher[0], teacher_head, labels)


WAYS = {
    "naive": naive,
    "chunked": partial(chunked_kd_loss, chunk=CHUNK),
    "trl": by_trl,
    "liger": by_liger,
}


def loss_arm(way: str) -> dict[str, float]:
    """Forward KL and gradient at V = 262,144, 512 positions, float32."""
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
        loss = WAYS[way](student, heads[0], teacher, heads[1], mask)
        (gradient,) = torch.autograd.grad(loss, student)
        seconds.append(time.perf_counter() - started)
    return {
        "loss": loss.item(),
        "gradient": gradient.norm().item(),
        "seconds": min(seconds),
        "mb": peak_memory_mb() - before,
    }


def measure_all() -> dict[str, list[float]]:
    """Every way in turn, kept in LOSSES; each figure over the first's.

    Raises CourseError where Liger, which the course does not need, is not
    installed.
    """
    if find_spec("liger_kernel") is None:
        raise CourseError(
            "Liger's loss is measured too: `pip install liger-kernel==0.6.4`."
        )
    run_way = partial(run_child, "helpers.rebuild.bench_losses")
    turns = take_turns(*WAYS, measure=run_way)
    content = {
        "command": "python3 -m helpers bench --only losses",
        "versions": package_versions() | {"liger": version("liger-kernel")},
        "vocabulary": VOCABULARY,
        "positions": POSITIONS,
        "chunk": CHUNK,
        "rounds": turns,
    }
    write_atomic(LOSSES, json.dumps(content, indent=1) + "\n")
    return {
        f"{way}_{name}": over(values, turns["naive"][name])
        for way, figures in turns.items()
        for name, values in figures.items()
    }


if __name__ == "__main__":
    print(json.dumps(loss_arm(sys.argv[1])))
