"""Side-by-side measurements: `python3 -m helpers bench`.

The arms of a comparison take turns, three times; a ratio is the median over
the rounds, its spread the lowest and the highest of them. Only ratios are
worth comparing between machines.

What bounds `cache_step`: a cached step saves the teacher's forward pass and
the loss over all of its vocabulary, and nothing else. Of the mini pair's
online step the forward pass was 0.25 to 0.34 (median 0.30), so a cache that
cost nothing would give 1 / (1 - 0.30) = 1.43 by it alone; with the smaller
loss it was 1.55 in the median, 1.54 to 1.87. The student's own step (4-bit
weights made wide again, adapters, backward) is the rest; the larger the
teacher beside its student, the more a cache saves.
"""

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

import torch

from helpers import select_profile
from helpers.cli.commands import command_parser
from helpers.distill import Lesson, Objective, pair_profile
from helpers.features import FeatureTerm
from helpers.files.cache import write_shard
from helpers.models import add_lora, load_student, load_teacher
from helpers.profiles import get_profile, set_seed
from helpers.rebuild.bench_losses import VOCABULARY
from helpers.rebuild.children import over, run_child, take_turns
from helpers.rebuild.experiments import budget_traces, cached
from helpers.widgets.training import train_timed

TOP_K, STEPS, ROWS, CACHED_POSITIONS = 64, 12, 192, 256


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
    "bytes": bytes_arm,
    "online": step_arm,
    "cached": partial(step_arm, is_cached=True),
    "states": partial(step_arm, kind="cosine"),
    "relations": partial(step_arm, kind="relation"),
}

Figures = dict[str, list[float]]  # a value for each round
run_arm = partial(run_child, "helpers.rebuild.bench")  # in its own process


def bench_kd() -> Figures:
    """Notebook 05: the cache's bytes, and a step with the teacher in memory
    over one from the cache."""
    size = run_arm("bytes")
    steps = take_turns("online", "cached", measure=run_arm)
    online, cached = steps.values()
    return {
        "cache_bytes": [size["dense"] / size["cached"]],
        "cache_bytes_per_token": [size["cached"]],
        "cache_step": over(online["seconds"], cached["seconds"]),
        "teacher_share": over(online["teacher"], online["seconds"]),
        "step_online_s": online["seconds"],
        "step_cached_s": cached["seconds"],
        "step_teacher_s": online["teacher"],
    }


def bench_losses() -> Figures:
    """One loss in four ways; kept in data/results/losses for notebook 05."""
    from helpers.rebuild.bench_losses import measure_all

    return measure_all()


def bench_features() -> Figures:
    """Steps that imitate hidden states too, over a plain logit step."""
    arms = ("online", "states", "relations")
    turns = take_turns(*arms, measure=run_arm)
    online, states, relations = (turns[arm]["seconds"] for arm in arms)
    return {
        "feature_step": over(states, online),
        "relation_step": over(relations, online),
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
    "losses": bench_losses,
    "features": bench_features,
    "memory": bench_memory,
    "processes": bench_processes,
}


def summarize(figures: Figures) -> dict[str, dict[str, Any]]:
    """The median of the rounds, and their lowest and highest."""
    rounded = {
        name: [float(f"{value:.4g}") for value in values]
        for name, values in figures.items()
    }
    return {
        "ratios": {name: median(v) for name, v in rounded.items()},
        "spread": {name: [min(v), max(v)] for name, v in rounded.items()},
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
        # All but the memory of whole runs is measured on the CPU.
        select_profile(options.profile if name == "memory" else "mini")
        figures |= PARTS[name]()
    summary = summarize(figures)
    if options.json:
        print(json.dumps(summary))
        return 0
    for name, value in summary["ratios"].items():
        low, high = summary["spread"][name]
        print(f"{name:<24}{value:<10g} ({low:g} to {high:g})")
    return 0


if __name__ == "__main__":
    print(json.dumps(ARMS[sys.argv[1]]()))
