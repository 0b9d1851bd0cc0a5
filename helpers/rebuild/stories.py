"""What a student reads, and what comes of it: two experiments of notebook 04.

Why a teacher at all? And whose prejudice about buses is it? Every student is
the notebook's, in four bits, and reads about READS rows.
"""

import random
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from helpers.models import Loaded, add_lora, load_student
from helpers.problems import load_problems
from helpers.profiles import DATA, MODELS, Profile
from helpers.rebuild.arms import Group
from helpers.rebuild.compose import generate_problems
from helpers.rebuild.contrasts import Contrast, family
from helpers.rebuild.experiments import (
    ALL_TRACES,
    MAKE_ALL,
    gold_rows,
    gold_text,
)
from helpers.results import read_results
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


def read_stories(
    names: Mapping[str, str] = NAMES, folder: Path = STORIES
) -> list[Group]:
    """A group an arm, in the order of `names`."""
    results = read_results(folder)
    found = {n: tuple(r for r in results if r.arm == n) for n in names}
    return [Group(n, 0, rows, names[n]) for n, rows in found.items() if rows]


def story_contrasts(
    pairs: Iterable[tuple[str, str]],
    *splits: str,
    names: Mapping[str, str] = NAMES,
    folder: Path = STORIES,
) -> list[Contrast]:
    """These pairs of arms on the splits, as one family."""
    at = {group.arm: group for group in read_stories(names, folder)}
    return family(
        (at[one].name, at[other].name, split,
         at[one].points(split), at[other].points(split))
        for one, other in list(pairs)
        for split in splits
        if one in at and other in at
    )  # fmt: skip
