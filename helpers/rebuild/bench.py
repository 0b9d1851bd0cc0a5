"""Side-by-side measurements: `python3 -m helpers bench`.

Every arm runs in a process of its own, so that peak memory is that arm's
alone. The arms of a comparison take turns, ROUNDS times; a ratio is the
median over the rounds, its spread the lowest and the highest of them. Only
ratios are worth comparing between machines.

What bounds `cache_step`: a cached step saves the teacher's forward pass and
the loss over all of its vocabulary, and nothing else. Of the mini pair's
online step the forward pass was 0.28 to 0.65 (median 0.32; the highest on a
busy machine), so 1 / (1 - 0.32) = 1.5 of it is the teacher: the ratio was
1.60 in the median, 1.24 in the round that another program disturbed. The
student's own step (4-bit weights made wide again, adapters, backward) is the
rest; the larger the teacher beside its student, the more a cache saves.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

from helpers.cli.commands import command_parser
from helpers.cli.environment import REPOSITORY
from helpers.rebuild.bench_arms import TOP_K, VOCABULARY

CACHED_POSITIONS, ROUNDS = 256, 3
Figures = dict[str, list[float]]  # a value for each round


def run_worker(name: str, folder: Path) -> dict[str, Any]:
    """One arm in a fresh process; its figures."""
    command = [sys.executable, "-m", "helpers.rebuild.bench_arms", name]
    done = subprocess.run(
        [*command, str(folder)],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise RuntimeError(f"{name} failed:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def take_turns(*names: str, folder: Path) -> list[dict[str, dict[str, Any]]]:
    """The figures of every arm, round by round."""
    return [
        {name: run_worker(name, folder) for name in names}
        for _ in range(ROUNDS)
    ]


def compare_losses(folder: Path) -> Figures:
    """Naive against chunked: memory, time, and how far apart they are."""
    from safetensors.torch import load_file

    turns = take_turns("naive", "chunked", folder=folder)
    gradients = [
        load_file(folder / f"{name}.safetensors")["gradient"]
        for name in ("naive", "chunked")
    ]
    apart = (gradients[0] - gradients[1]).abs().max()
    pairs = [(turn["naive"], turn["chunked"]) for turn in turns]
    return {
        "kd_memory": [naive["mb"] / chunked["mb"] for naive, chunked in pairs],
        "kd_time": [b["seconds"] / a["seconds"] for a, b in pairs],
        "kd_loss_difference": [abs(a["loss"] - b["loss"]) for a, b in pairs],
        "kd_gradient_difference": [float(apart / gradients[0].abs().max())],
        "kd_naive_mb": [naive["mb"] for naive, _ in pairs],
        "kd_chunked_mb": [chunked["mb"] for _, chunked in pairs],
    }


def compare_bytes(folder: Path) -> Figures:
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
        "cache_bytes": [dense.stat().st_size / size],
        "cache_bytes_per_token": [size / CACHED_POSITIONS],
    }


def compare_steps(folder: Path) -> Figures:
    """A step with the teacher in memory against one from the cache."""
    turns = take_turns("online", "cached", folder=folder)
    online = [turn["online"]["seconds"] for turn in turns]
    cached = [turn["cached"]["seconds"] for turn in turns]
    teacher = [turn["online"]["teacher"] for turn in turns]
    return {
        "cache_step": [a / b for a, b in zip(online, cached, strict=True)],
        "teacher_share": [b / a for a, b in zip(online, teacher, strict=True)],
        "step_online_s": online,
        "step_cached_s": cached,
        "step_teacher_s": teacher,
    }


def bench_kd() -> Figures:
    """All figures of notebook 05."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        return {
            **compare_losses(folder),
            **compare_bytes(folder),
            **compare_steps(folder),
        }


def bench_features() -> Figures:
    """Steps that imitate hidden states too, over a plain logit step."""
    arms = ("online", "states", "relations")
    with tempfile.TemporaryDirectory() as name:
        turns = take_turns(*arms, folder=Path(name))
    seconds = {arm: [turn[arm]["seconds"] for turn in turns] for arm in arms}
    online, states, relations = seconds.values()
    return {
        "feature_step": [a / b for a, b in zip(states, online, strict=True)],
        "relation_step": [
            a / b for a, b in zip(relations, online, strict=True)
        ],
        "step_states_s": states,
        "step_relations_s": relations,
    }


def bench_memory() -> Figures:
    """Peaks of whole runs; kept in data/results/memory for notebook 10.

    Each ratio is expected over measured: 1 is a perfect plan.
    """
    from helpers.rebuild.bench_memory import measure_all
    from helpers.rebuild.memory_points import write_points

    points = list(measure_all())
    write_points(points)
    return {
        f"plan_{number:02d}": [point.expected / point.peak]
        for number, point in enumerate(points)
    } | {"plan_largest_error": [max(abs(point.error) for point in points)]}


def bench_processes() -> Figures:
    """Two processes over one; kept in data/results/processes."""
    from helpers.rebuild.bench_processes import measure_all, ratios

    return {name: [value] for name, value in ratios(measure_all()).items()}


PARTS: dict[str, Callable[[], Figures]] = {
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
    figures: Figures = {}
    for name in [options.only] if options.only else PARTS:
        figures |= PARTS[name]()
    summary = summarize(figures)
    if options.json:
        print(json.dumps(summary))
        return 0
    for name, value in summary["ratios"].items():
        low, high = summary["spread"][name]
        print(f"{name:<24}{value:<10g} ({low:g} to {high:g})")
    return 0


def summarize(figures: Figures) -> dict[str, dict[str, Any]]:
    """The median of the rounds, and their lowest and highest."""

    def short(value: float) -> float:
        return float(f"{value:.4g}")

    return {
        "ratios": {n: short(median(values)) for n, values in figures.items()},
        "spread": {
            name: [short(min(values)), short(max(values))]
            for name, values in figures.items()
        },
    }
