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

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import partial
from statistics import median
from typing import Any

from helpers.cli.commands import command_parser
from helpers.rebuild.children import run_child, take_turns

Figures = dict[str, list[float]]  # a value for each round
run_arm = partial(run_child, "helpers.rebuild.bench_arms")


def over(first: Sequence[float], second: Sequence[float]) -> list[float]:
    """The ratio of two figures, round by round."""
    return [a / b for a, b in zip(first, second, strict=True)]


def bench_kd() -> Figures:
    """Notebook 05: the naive loss over the chunked one, the cache's bytes,
    and a step with the teacher in memory over one from the cache."""
    size = run_arm("bytes")
    losses = take_turns("naive", "chunked", measure=run_arm)
    steps = take_turns("online", "cached", measure=run_arm)
    naive, chunked = losses.values()
    online, cached = steps.values()
    return {
        "kd_memory": over(naive["mb"], chunked["mb"]),
        "kd_time": over(chunked["seconds"], naive["seconds"]),
        "kd_loss": over(chunked["loss"], naive["loss"]),
        "kd_gradient": over(chunked["gradient"], naive["gradient"]),
        "kd_naive_mb": naive["mb"],
        "kd_chunked_mb": chunked["mb"],
        "cache_bytes": [size["dense"] / size["cached"]],
        "cache_bytes_per_token": [size["cached"]],
        "cache_step": over(online["seconds"], cached["seconds"]),
        "teacher_share": over(online["teacher"], online["seconds"]),
        "step_online_s": online["seconds"],
        "step_cached_s": cached["seconds"],
        "step_teacher_s": online["teacher"],
    }


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
        figures |= PARTS[name]()
    summary = summarize(figures)
    if options.json:
        print(json.dumps(summary))
        return 0
    for name, value in summary["ratios"].items():
        low, high = summary["spread"][name]
        print(f"{name:<24}{value:<10g} ({low:g} to {high:g})")
    return 0
