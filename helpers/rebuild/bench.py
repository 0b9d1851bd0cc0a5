"""Side-by-side measurements: `python3 -m helpers bench`.

Every arm runs in a process of its own, so that peak memory is that arm's
alone; arms alternate, so that a busy machine slows all of them. Only ratios
are worth comparing between machines.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from helpers.cli.commands import command_parser
from helpers.cli.environment import REPOSITORY

VOCABULARY, POSITIONS, WIDTH, CHUNK = 262_144, 512, 128, 64
TOP_K, CACHED_POSITIONS = 64, 256
STEPS, ROWS, ROUNDS = 12, 192, 3


def run_worker(name: str, folder: Path) -> dict[str, Any]:
    """One arm in a fresh process; its figures."""
    done = subprocess.run(
        [sys.executable, "-m", "helpers.rebuild.bench", name, str(folder)],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise RuntimeError(f"{name} failed:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


# --- arms -------------------------------------------------------------------


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
    are imitated as well, by this kind of loss.
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
    return {"seconds": median(train_timed(trainer)[:STEPS])}


ARMS: dict[str, Callable[[Path], dict[str, Any]]] = {
    "naive": lambda folder: loss_arm(folder, chunked=False),
    "chunked": lambda folder: loss_arm(folder, chunked=True),
    "online": step_arm,
    "cached": lambda folder: step_arm(folder, cached=True),
    "states": lambda folder: step_arm(folder, kind="cosine"),
    "relations": lambda folder: step_arm(folder, kind="relation"),
}


# --- parts ------------------------------------------------------------------


def compare_losses(folder: Path) -> dict[str, float]:
    """Naive against chunked: memory, time, and how far apart they are."""
    from safetensors.torch import load_file

    runs = {name: [] for name in ("naive", "chunked")}
    for _ in range(2):
        for name, found in runs.items():
            found.append(run_worker(name, folder))
    gradients = [
        load_file(folder / f"{name}.safetensors")["gradient"] for name in runs
    ]
    apart = (gradients[0] - gradients[1]).abs().max()
    naive, chunked = runs.values()
    return {
        "kd_memory": min(r["mb"] for r in naive)
        / max(r["mb"] for r in chunked),
        "kd_time": min(r["seconds"] for r in chunked)
        / min(r["seconds"] for r in naive),
        "kd_loss_difference": abs(naive[0]["loss"] - chunked[0]["loss"]),
        "kd_gradient_difference": float(apart / gradients[0].abs().max()),
        "kd_naive_mb": naive[0]["mb"],
        "kd_chunked_mb": chunked[0]["mb"],
    }


def compare_bytes(folder: Path) -> dict[str, float]:
    """A shard of the cache against dense float16, both measured as files."""
    import torch
    from safetensors.torch import save_file

    from helpers.logit_cache import write_shard

    torch.manual_seed(7)
    logprobs = torch.randn(CACHED_POSITIONS, VOCABULARY).log_softmax(-1)
    dense = folder / "dense.safetensors"
    save_file({"logprobs": logprobs.half()}, dense)
    best = logprobs.topk(TOP_K)
    tensors = {
        "ids": best.indices.to(torch.int32),
        "logprobs": best.values.half(),
        "lengths": torch.tensor([CACHED_POSITIONS]),
    }
    size = write_shard(folder, 0, tensors, {}).stat().st_size
    return {
        "cache_bytes": dense.stat().st_size / size,
        "cache_bytes_per_token": size / CACHED_POSITIONS,
    }


def step_seconds(names: Sequence[str], folder: Path) -> dict[str, float]:
    """The fastest of ROUNDS medians for each arm, the arms alternating."""
    runs: dict[str, list[float]] = {name: [] for name in names}
    for _ in range(ROUNDS):
        for name, found in runs.items():
            found.append(run_worker(name, folder)["seconds"])
    return {name: min(found) for name, found in runs.items()}


def compare_steps(folder: Path) -> dict[str, float]:
    """A step with the teacher in memory against one from the cache."""
    fastest = step_seconds(("online", "cached"), folder)
    return {
        "cache_step": fastest["online"] / fastest["cached"],
        "step_online_s": fastest["online"],
        "step_cached_s": fastest["cached"],
    }


def bench_kd() -> dict[str, float]:
    """All figures of notebook 05."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        return {
            **compare_losses(folder),
            **compare_bytes(folder),
            **compare_steps(folder),
        }


def bench_features() -> dict[str, float]:
    """Steps that imitate hidden states too, over a plain logit step."""
    with tempfile.TemporaryDirectory() as name:
        fastest = step_seconds(("online", "states", "relations"), Path(name))
    return {
        "feature_step": fastest["states"] / fastest["online"],
        "relation_step": fastest["relations"] / fastest["online"],
        "step_states_s": fastest["states"],
        "step_relations_s": fastest["relations"],
    }


def bench_memory() -> dict[str, float]:
    """Peaks of whole runs; kept in data/results/memory for notebook 10.

    Each ratio is expected over measured: 1 is a perfect plan.
    """
    from helpers.rebuild.bench_memory import measure_all
    from helpers.rebuild.memory_points import write_points

    points = list(measure_all())
    write_points(points)
    return {
        f"plan_{number:02d}": point.expected / point.peak
        for number, point in enumerate(points)
    } | {"plan_largest_error": max(abs(point.error) for point in points)}


def bench_processes() -> dict[str, float]:
    """Two processes over one; kept in data/results/processes."""
    from helpers.rebuild.bench_processes import measure_all, ratios

    return ratios(measure_all())


PARTS: dict[str, Callable[[], dict[str, float]]] = {
    "kd": bench_kd,
    "features": bench_features,
    "memory": bench_memory,
    "processes": bench_processes,
}


def main(argv: list[str]) -> int:
    """`python3 -m helpers bench`."""
    parser = command_parser("bench", __doc__)
    parser.add_argument("--only", choices=PARTS, help="one part alone")
    parser.add_argument(
        "--json", action="store_true", help="one JSON object, nothing else"
    )
    options = parser.parse_args(argv)
    ratios: dict[str, float] = {}
    for name in [options.only] if options.only else PARTS:
        ratios |= PARTS[name]()
    ratios = {name: float(f"{value:.4g}") for name, value in ratios.items()}
    if options.json:
        print(json.dumps({"ratios": ratios}))
    else:
        for name, value in ratios.items():
            print(f"{name:<24}{value:g}")
    return 0


if __name__ == "__main__":
    print(json.dumps(ARMS[sys.argv[1]](Path(sys.argv[2]))))
