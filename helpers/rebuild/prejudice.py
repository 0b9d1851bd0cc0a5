"""A wrong teacher and the student's own text: an experiment of notebook 07.

The teacher calls every puzzle of three buses impossible; half of them are
not. A student who has read none of its bus traces answers bus questions, and
that teacher judges it, token by token. Two rivals start from the same
student: as many own texts on other questions, and gold text on these buses.

`python3 -m helpers.rebuild.prejudice` makes what is missing, seed by seed.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import replace
from typing import Any

from helpers.evaluate import Evaluation
from helpers.models import Loaded, add_lora, load_student
from helpers.problems import load_problems
from helpers.profiles import DATA, Profile, set_seed
from helpers.rebuild.arms import SIGNALS
from helpers.rebuild.compare import lab_profile, setting_of
from helpers.rebuild.compose import generate_problems
from helpers.rebuild.decoding import quick_evaluate
from helpers.rebuild.lessons import Setting, learn, listen
from helpers.rebuild.stories import as_thought, bus_rows
from helpers.results import to_result, write_result
from helpers.traces import filter_traces, load_traces

PREJUDICE = DATA / "results" / "prejudice"
ARMS = {  # the last three start from the first
    "no_bus": "traces, no bus among them",
    "own_buses": "then own text on buses",
    "own_others": "then own text on other questions",
    "gold_buses": "then gold text on buses",
}
VERDICT = "solvable buses called impossible"
KINDS = ("solvable buses", VERDICT, "impossible buses", "test")
ASKED, LESSON = 64, Setting(1e-3, 512)  # questions; fixed beforehand
TESTED = 500  # problems of the test, to see what else changes


def rows_of(arm: str, seed: int) -> list[dict[str, Any]]:
    """Sound traces of the profile without a bus, some of them, or buses.

    The buses are new ones, a solvable and an impossible one of each story,
    with their gold solution as the trace.
    """
    problems = load_problems("mini", "train")
    sound, _ = filter_traces(load_traces(lab_profile().traces_path))
    others = bus_rows("buses_none", sound, problems)
    if arm == "no_bus":
        return others
    if arm == "own_others":
        return random.Random(seed).sample(others, ASKED)
    known = {p["question"] for p in load_problems("mini", "buses") + problems}
    new = generate_problems(ASKED, seed=seed, split="buses", exclude=known)
    return [
        {"id": f"bus-{number}", "question": p.question,
         "qwen3_answer": as_thought(p.answer)}
        for number, p in enumerate(new)
    ]  # fmt: skip


def teach(arm: str, student: Loaded, profile: Profile, seed: int) -> Loaded:
    """A copy of the student, taught as the arm says."""
    pupil = replace(student, model=deepcopy(student.model))
    own = arm.startswith("own")
    signal = SIGNALS["on_policy" if own else "text"]
    setting = setting_of("text", 250) if arm == "no_bus" else LESSON
    heard = listen(rows_of(arm, seed), signal, pupil, profile, seed)
    learn(pupil, heard, signal, profile=profile, setting=setting, seed=seed)
    return pupil


def scores(student: Loaded, profile: Profile) -> dict[str, Evaluation]:
    """On a part of the test, on buses, and whom it calls impossible."""
    merged = deepcopy(student.model).merge_and_unload()
    student = replace(student, model=merged)
    test, buses = (
        quick_evaluate(
            student, load_problems("mini", split, limit=most), profile
        )
        for split, most in (("test", TESTED), ("buses", None))
    )
    solvable = [
        (p | {"answer": "#### no solution"}, completion)
        for p, completion in zip(
            buses.problems, buses.completions, strict=True
        )
        if not p["impossible"]
    ]
    verdict = Evaluation(*map(list, zip(*solvable, strict=True)), 0.0)
    return {"test": test, "buses": buses, VERDICT: verdict}


def main(argv: Sequence[str] | None = None) -> int:
    """One file for each arm and seed; what is there is skipped."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", nargs="+", type=int, default=[7, 8, 9])
    for seed in parser.parse_args(argv).seeds:
        paths = {
            arm: PREJUDICE / f"mini-{arm}-seed{seed}.json" for arm in ARMS
        }
        if all(path.exists() for path in paths.values()):
            continue
        profile = lab_profile()
        set_seed(seed)
        student = add_lora(load_student(profile), rank=profile.rank, seed=seed)
        first = teach("no_bus", student, profile, seed)
        for arm, path in paths.items():
            if path.exists():
                continue
            set_seed(seed)
            pupil = first
            if arm != "no_bus":
                pupil = teach(arm, first, profile, seed)
            result = to_result(
                arm, scores(pupil, profile), profile=profile, seed=seed,
                command=f"python3 -m helpers.rebuild.prejudice --seeds {seed}",
                notes=ARMS[arm],
            )  # fmt: skip
            print(write_result(result, PREJUDICE).name, flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
