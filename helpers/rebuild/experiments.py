"""`python3 -m helpers distill`: one student by the course's own trainers.

The experiment of notebook 08 has a loop of its own (rebuild/lessons.py).
"""

import re
from dataclasses import replace
from typing import Any

from helpers.answers import NO_SOLUTION
from helpers.distill import Lesson, Objective, distill_student
from helpers.evaluate import Evaluation, evaluate
from helpers.features import FeatureTerm
from helpers.logit_cache import write_cache
from helpers.models import (
    Loaded,
    add_lora,
    load_student,
    load_teacher,
    processes,
)
from helpers.problems import load_problems, load_tests
from helpers.profiles import RUNS, Profile
from helpers.sft import RunError, TrainingRun, train_student
from helpers.traces import filter_traces, load_traces

ARMS = (
    *("sft_gold", "sft_traces", "logit_online", "logit_cached"),
    *("logit_online_t2", "feature_text", "feature_relation", "feature_logit"),
)
SOFTENED = Objective(temperature=2.0)
OBJECTIVES = {
    "logit_online_t2": SOFTENED,
    "feature_text": Objective(
        soft=0.0, features=FeatureTerm("even", 0.3, "cosine")
    ),
    "feature_relation": Objective(
        soft=0.0, features=FeatureTerm("last", 0.1, "relation")
    ),
    "feature_logit": replace(
        SOFTENED, features=FeatureTerm("last", 0.3, "relation")
    ),
}
READS = 2000  # rows that a student reads, whatever the budget
TOP_K = 16
ALL_TRACES = RUNS / "mini" / "traces" / "all.jsonl"
MAKE_ALL = (
    "python3 -m helpers traces --limit 4500 --output "
    "data/runs/mini/traces/all.jsonl"
)


def gold_text(answer: str) -> str:
    """A GSM8K solution as a student should write it, notes removed.

    `24*3 = <<24*3=72>>72 pens.` and `#### 72` become running text and
    `The answer is 72.`
    """
    worked, _, final = answer.rpartition("#### ")
    worked = " ".join(re.sub(r"<<.*?>>", "", worked).split())
    result = f"The answer is {final}."
    if final == NO_SOLUTION:
        result = "There is no solution."
    return f"{worked}\n\n{result}".lstrip()  # the final answer may be all


def gold_rows(profile: Profile, budget: int) -> list[dict]:
    """The first `budget` questions with the data set's own solutions.

    Raises RunError where it works out fewer; the mini lab's has 250.
    """
    problems = load_problems(profile.problems, "train")
    worked = [p for p in problems if not p["answer"].startswith("####")]
    if len(worked) < budget:
        raise RunError(
            f"only {len(worked)} problems come with a worked solution: choose "
            f"--budget {len(worked)} or less for gold text."
        )
    return [
        {**problem, "qwen3_answer": gold_text(problem["answer"])}
        for problem in worked[:budget]
    ]


def budget_traces(profile: Profile, budget: int, arm: str = "") -> list[dict]:
    """What an arm reads: the first `budget` sound traces, or gold rows.

    They are the profile's, or ALL_TRACES' ones. Raises RunError when there
    are not so many, with the command for more.
    """
    if arm == "sft_gold":
        return gold_rows(profile, budget)
    for path in (profile.traces_path, ALL_TRACES):
        traces = filter_traces(load_traces(path))[0] if path.exists() else []
        if len(traces) >= budget:
            return traces[:budget]
    raise RunError(
        f"there are no {budget} sound traces. Make more: `{MAKE_ALL}`"
    )


def train_arm(
    arm: str,
    traces: list[dict],
    *,
    profile: Profile,
    objective: Objective | None = None,
    epochs: int | None = None,
    seed: int = 7,
    progress: bool = True,
) -> tuple[Loaded, TrainingRun]:
    """One student, trained; profile: of `pair_profile`.

    By default every budget reads READS rows: few traces are read more often.
    """
    student = add_lora(load_student(profile), rank=profile.rank, seed=seed)
    common: dict[str, Any] = {
        "profile": profile,
        "run": f"{arm}_{len(traces)}_seed{seed}",
        "epochs": epochs or max(1, round(READS / len(traces))),
        "seed": seed,
        "overwrite": True,
        "progress": progress,
        "student": student,
    }
    if arm.startswith("sft"):
        return student, train_student(traces, **common)
    objective = objective or OBJECTIVES.get(arm, Objective())
    lesson = Lesson(traces, load_teacher(profile), objective)
    if arm == "logit_cached":
        lesson = cached(lesson, student, profile=profile)
    return student, distill_student(lesson, **common)


def cached(
    lesson: Lesson, student: Loaded, *, profile: Profile, top_k: int = TOP_K
) -> Lesson:
    """The lesson from a cache, which the first process makes."""
    temperature = lesson.objective.temperature
    name = f"{len(lesson.traces)}_k{top_k}_t{temperature:g}"
    with processes().main_process_first():
        cache = write_cache(
            lesson.traces,
            lesson.teacher,
            profile.run_folder / "cache" / name,
            tokenizer=student.tokenizer,
            k=top_k,
            temperature=temperature,
            max_length=profile.max_length,
            batch_size=profile.batch_size,
        )
    teacher = replace(lesson.teacher, model=None)  # it may go now
    return replace(lesson, teacher=teacher, cache=cache)


def score_arm(
    student: Loaded, profile: Profile, split: str
) -> dict[str, Evaluation]:
    """The split; with the test, all of it and mini's other splits."""
    sets = load_tests(profile.problems)
    if split != "test":
        limit = profile.evaluation
        sets = {split: load_problems(profile.problems, split, limit=limit)}
    return {
        name: evaluate(student, asked, profile=profile)
        for name, asked in sets.items()
    }
