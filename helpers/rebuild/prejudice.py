"""A wrong teacher and the student's own text: an experiment of notebook 07.

The teacher calls every puzzle of three buses impossible; half of them are
not. A student who has read none of its bus traces answers bus questions, and
that teacher judges it, token by token. Two rivals start from the same
student: as many own texts on other questions, and gold text on these buses.
"""

import random
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import replace
from typing import Any

from helpers.cli.commands import command_parser
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


def rows_of(arm: str, profile: Profile, seed: int) -> list[dict[str, Any]]:
    """Sound traces without a bus, ASKED of them, or new buses with gold."""
    problems = load_problems("mini", "train")
    sound, _ = filter_traces(load_traces(profile.traces_path))
    others = bus_rows("buses_none", sound, problems)
    if "buses" not in arm:
        draw = random.Random(seed)
        return others if arm == "no_bus" else draw.sample(others, ASKED)
    known = {p["question"] for p in load_problems("mini", "buses") + problems}
    new = generate_problems(ASKED, seed=seed, split="buses", exclude=known)
    texts = [(p.question, as_thought(p.answer)) for p in new]
    names = ("id", "question", "qwen3_answer")
    return [dict(zip(names, (q, q, a), strict=True)) for q, a in texts]


def teach(arm: str, student: Loaded, profile: Profile, seed: int) -> Loaded:
    """A copy of the student, taught as the arm says."""
    set_seed(seed)
    pupil = replace(student, model=deepcopy(student.model))
    signal = SIGNALS["on_policy" if arm.startswith("own") else "text"]
    setting = setting_of("text", 250) if arm == "no_bus" else LESSON
    rows = rows_of(arm, profile, seed)
    heard = listen(rows, signal, pupil, profile, seed)
    learn(pupil, heard, signal, profile=profile, setting=setting, seed=seed)
    return pupil


def scores(student: Loaded, profile: Profile) -> dict[str, Evaluation]:
    """On a part of the test, on buses, and whom it calls impossible."""
    merged = deepcopy(student.model).merge_and_unload()
    test, buses = (
        quick_evaluate(
            replace(student, model=merged),
            load_problems("mini", split, limit=most),
            profile,
        )
        for split, most in (("test", TESTED), ("buses", None))
    )
    pairs = zip(buses.problems, buses.completions, strict=True)
    solvable = [pair for pair in pairs if not pair[0]["impossible"]]
    called = Evaluation(
        [problem | {"answer": "#### no solution"} for problem, _ in solvable],
        [completion for _, completion in solvable],
        seconds=0.0,
    )
    return {"test": test, "buses": buses, VERDICT: called}


def main(argv: Sequence[str]) -> int:
    """`python3 -m helpers prejudice`: a seed that is there is skipped."""
    parser = command_parser("prejudice", __doc__)
    parser.add_argument("--seeds", nargs="+", type=int, default=[7, 8, 9])
    profile = lab_profile()
    for seed in parser.parse_args(argv).seeds:
        if len(list(PREJUDICE.glob(f"*-seed{seed}.json"))) == len(ARMS):
            continue
        student = load_student(profile)
        student = add_lora(student, rank=profile.rank, seed=seed)
        first = teach("no_bus", student, profile, seed)
        for arm, notes in ARMS.items():
            pupil = first
            if arm != "no_bus":
                pupil = teach(arm, first, profile, seed)
            result = to_result(
                arm, scores(pupil, profile), profile=profile, seed=seed,
                command=f"python3 -m helpers prejudice --seeds {seed}",
                notes=notes,
            )  # fmt: skip
            print(write_result(result, PREJUDICE).name, flush=True)
    return 0
