"""What a student reads, and what comes of it: two experiments of notebook 04.

Why a teacher at all? And whose prejudice about buses is it? Every student is
the notebook's, in four bits, and reads about READS rows.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from helpers.evaluate import compare_arms
from helpers.models import Loaded, add_lora, load_student
from helpers.problems import load_problems
from helpers.profiles import DATA, MODELS, Profile
from helpers.rebuild.compose import generate_problems
from helpers.rebuild.experiments import (
    ALL_TRACES,
    MAKE_ALL,
    gold_rows,
    gold_text,
)
from helpers.results import Result, read_results
from helpers.sft import RunError, TrainingRun, train_student
from helpers.traces import filter_traces, load_traces

STORIES = DATA / "results" / "stories"
READS, WORKED, GOLD_BUSES = 4000, 250, 20
UNTAUGHT = MODELS / "mini-gemma3-untaught"
WHY = {
    "gold_250": "250 gold solutions",
    "traces_250": "250 traces",
    "answers_4000": "4,000 final answers",
    "traces_4000": "4,000 traces, no solution known",
    "untaught_250": "250 traces, student never read solutions",
}
BUSES = {
    "buses_kept": "sound traces",
    "buses_none": "no bus among them",
    "buses_gold": f"and {GOLD_BUSES} gold bus answers",
    "buses_unfiltered": "all traces, unfiltered",
}
NAMES = WHY | BUSES


def rows_of(arm: str, profile: Profile, seed: int) -> list[dict[str, Any]]:
    """The rows of an arm; every seed of WHY draws its own, gold has but 250.

    Raises RunError where there are not enough traces, with the command.
    """
    draw = random.Random(seed)
    problems = load_problems(profile.problems, "train")
    if arm == "gold_250":
        return gold_rows(profile, WORKED)
    if arm == "answers_4000":
        unsolved = draw.sample(problems[WORKED:], 4000)
        return [p | {"qwen3_answer": gold_text(p["answer"])} for p in unsolved]
    if arm in BUSES:
        traces = load_traces(profile.traces_path)
        sound, _ = filter_traces(traces)
        return traces if arm == "buses_unfiltered" else bus_rows(
            arm, sound, problems
        )  # fmt: skip
    if not ALL_TRACES.exists():
        raise RunError(f"{arm} needs more traces than ship: `{MAKE_ALL}`")
    sound, _ = filter_traces(load_traces(ALL_TRACES))
    solved = {problem["question"] for problem in problems[:WORKED]}
    sound = [row for row in sound if row["question"] not in solved]
    return draw.sample(sound, int(arm.rpartition("_")[2]))


def bus_rows(
    arm: str, sound: list[dict[str, Any]], problems: list[dict[str, Any]]
) -> list[dict[str, Any]]:
    """The sound traces; none of a bus; or all, and gold of solvable buses.

    The gold buses are new ones: nobody is asked them.
    """
    buses = {p["question"] for p in problems if p.get("moves") == "buses"}
    if arm == "buses_none":
        return [row for row in sound if row["question"] not in buses]
    if arm == "buses_gold":
        asked = {p["question"] for p in load_problems("mini", "buses")}
        new = generate_problems(
            3 * GOLD_BUSES, seed=1, split="buses", exclude=asked | buses
        )
        gold = [p for p in new if not p.impossible][:GOLD_BUSES]
        sound = sound + [
            {"question": p.question, "qwen3_answer": as_thought(p.answer)}
            for p in gold
        ]
    return sound


def as_thought(answer: str) -> str:
    """A gold solution in the form of a trace."""
    worked, _, last = gold_text(answer).rpartition("\n\n")
    return f"<think>\n{worked}\n</think>\n\n{last}"


def train_story(
    arm: str, profile: Profile, seed: int
) -> tuple[Loaded, TrainingRun]:
    """One student of WHY or BUSES, trained."""
    name = str(UNTAUGHT) if arm.startswith("untaught") else None
    student = add_lora(
        load_student(profile, name), rank=profile.rank, seed=seed
    )
    rows = rows_of(arm, profile, seed)
    run = train_student(
        rows,
        profile=profile,
        run=f"{arm}_seed{seed}",
        epochs=max(1, round(READS / len(rows))),
        seed=seed,
        overwrite=True,
        student=student,
    )
    return student, run


def read_stories(folder: Path = STORIES) -> dict[str, list[Result]]:
    """The results of every arm, a result a seed, in the order of NAMES."""
    results = read_results(folder)
    grouped = {n: [r for r in results if r.arm == n] for n in NAMES}
    return {name: rows for name, rows in grouped.items() if rows}


def flags(
    results: list[Result], split: str = "test", groups: Any = None
) -> np.ndarray:
    """(seeds, problems), right or not; of `groups`, (seeds, groups).

    groups: one name a problem, as its composition. The mean over the groups
    is the accuracy; problems of one group stay together, and a large group
    is no outlier: it counts by its distance from the mean.
    """
    parts = [r.right if split == "test" else r.splits[split]["right"]
             for r in results]  # fmt: skip
    right = np.array([[mark == "1" for mark in part] for part in parts], float)
    if groups is None:
        return right
    _, place = np.unique(groups, return_inverse=True)
    means = right.mean(axis=1, keepdims=True)
    sums = np.array([np.bincount(place, row) for row in right - means])
    return means + sums * sums.shape[1] / right.shape[1]


def mean_with_interval(values: np.ndarray) -> tuple[float, float, float]:
    """Mean, low and high, for other seeds and other problems."""
    mean, low, high, _ = compare_arms(np.zeros_like(values), values)
    return mean, low, high


def story_markdown(
    names: Iterable[str], splits: Sequence[str], folder: Path = STORIES
) -> str:
    """A row an arm, a column a split: mean and 95% interval, clustered."""
    stories = read_stories(folder)
    rows = []
    for name in names:
        if name in stories:
            cells = []
            for split in splits:
                told = mean_with_interval(flags(stories[name], split))
                mean, low, high = (100 * value for value in told)
                cells.append(f"{mean:.1f}% ({low:.1f} to {high:.1f})")
            seeds = len(stories[name])
            rows.append(f"| {NAMES[name]} | {seeds} | {' | '.join(cells)} |")
    head = f"| student read | seeds | {' | '.join(splits)} |"
    rule = "|---|---:|" + "---:|" * len(splits)
    command = "python3 -m helpers distill --arm gold_250 --seed 7 --write"
    none = f"No results yet. One row of one seed: `{command}`"
    return "\n".join([head, rule, *rows]) if rows else none


def gain(
    first: str, second: str, split: str = "test", folder: Path = STORIES
) -> tuple[float, float, float] | None:
    """Points that `second` gains over `first`, low and high.

    On the seeds that both have; None where there is no such seed.
    """
    stories = read_stories(folder)
    pair = [{r.seed: r for r in stories.get(n, [])} for n in (first, second)]
    both = sorted(pair[0].keys() & pair[1].keys())
    if not both:
        return None
    values = (flags([one[seed] for seed in both], split) for one in pair)
    points, low, high, _ = compare_arms(*values)
    return 100 * points, 100 * low, 100 * high
