"""The arms of notebooks 05 and 06: one student, many kinds of target.

`python3 -m helpers distill` trains one arm on one budget of traces, scores it
on the test split and, with --write, keeps the result in data/results/kd.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from helpers.cli.commands import command_parser
from helpers.distill import Objective, distill_student, pair_profile
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
from helpers.problems import load_problems
from helpers.profiles import RUNS, Profile, get_profile, set_seed
from helpers.rebuild.arms import ARM_NAMES, KD_RESULTS
from helpers.results import to_result, write_result
from helpers.sft import RunError, TrainingRun, train_student
from helpers.traces import filter_traces, load_traces

ARMS = tuple(ARM_NAMES)
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
CHANGES = {"soft": float, "temperature": float, "kind": str}
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
    worked, _, final = answer.rpartition("\n#### ")
    worked = " ".join(re.sub(r"<<.*?>>", "", worked).split())
    if final == "no solution":
        return f"{worked}\n\nThere is no solution."
    return f"{worked}\n\nThe answer is {final}."


def gold_traces(traces: Iterable[dict]) -> list[dict]:
    """The same questions with the data set's own solutions as answers."""
    return [
        {**trace, "qwen3_answer": gold_text(trace["gold"])} for trace in traces
    ]


def budget_traces(profile: Profile, budget: int) -> list[dict]:
    """The first `budget` sound traces: the profile's, or ALL_TRACES' ones.

    Raises RunError when there are not so many, with the command for more.
    """
    for path in (profile.traces_path, ALL_TRACES):
        kept = filter_traces(load_traces(path))[0] if path.exists() else []
        if len(kept) >= budget:
            return kept[:budget]
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
    top_k: int = TOP_K,
    overwrite: bool = True,
    progress: bool = True,
) -> tuple[Loaded, TrainingRun]:
    """One student, trained; profile: of `pair_profile`.

    By default every budget reads READS rows: few traces are read more often.
    """
    epochs = epochs or max(1, round(READS / len(traces)))
    student = add_lora(load_student(profile), rank=profile.rank, seed=seed)
    common: dict[str, Any] = {
        "profile": profile,
        "run": f"{arm}_{len(traces)}_seed{seed}",
        "epochs": epochs,
        "seed": seed,
        "overwrite": overwrite,
        "progress": progress,
        "student": student,
    }
    if arm.startswith("sft"):
        rows = gold_traces(traces) if arm == "sft_gold" else traces
        return student, train_student(rows, **common)
    objective = objective or OBJECTIVES.get(arm, Objective())
    teacher, cache = load_teacher(profile), None
    if arm == "logit_cached":
        if not processes().is_main_process:
            processes().wait_for_everyone()  # then it is only opened
        cache = write_cache(
            traces,
            teacher,
            profile.run_folder
            / "cache"
            / f"{len(traces)}_k{top_k}_t{objective.temperature:g}",
            tokenizer=student.tokenizer,
            k=top_k,
            temperature=objective.temperature,
            max_length=profile.max_length,
        )
        if processes().is_main_process:
            processes().wait_for_everyone()
        teacher = replace(teacher, model=None)  # it may go now
    done = distill_student(
        traces, objective=objective, teacher=teacher, cache=cache, **common
    )
    return student, done


def score_arm(
    student: Loaded, profile: Profile, split: str
) -> list[Evaluation]:
    """The split, then, where there are any, the held-out templates."""
    sets = [load_problems(profile.problems, split, limit=profile.evaluation)]
    if profile.problems == "mini" and split == "test":
        sets.append(load_problems("mini", "held_out"))
    return [evaluate(student, asked, profile=profile) for asked in sets]


def main(argv: list[str]) -> int:
    """`python3 -m helpers distill`."""
    parser = command_parser("distill", __doc__)
    parser.add_argument("--arm", default="logit_online", choices=ARMS)
    parser.add_argument("--budget", type=int, default=1000, help="traces")
    parser.add_argument(
        "--epochs", type=int, help=f"default: {READS} / budget"
    )
    for name, kind in CHANGES.items():
        parser.add_argument(f"--{name}", type=kind, help="of the objective")
    parser.add_argument("--top-k", type=int, default=TOP_K)
    parser.add_argument("--learning-rate", type=float)
    parser.add_argument(
        "--split", default="test", choices=["validation", "test"]
    )
    parser.add_argument("--write", action="store_true", help="keep the result")
    options = parser.parse_args(argv)
    changes = {
        name: getattr(options, name)
        for name in CHANGES
        if getattr(options, name) is not None
    }
    if options.write and (changes or options.learning_rate):
        parser.error("--write keeps arms as they are defined; leave it away")
    profile = pair_profile(get_profile(options.profile))
    if options.learning_rate:
        profile = replace(profile, learning_rate=options.learning_rate)
    set_seed(options.seed)
    student, done = train_arm(
        options.arm,
        budget_traces(profile, options.budget),
        profile=profile,
        objective=replace(OBJECTIVES.get(options.arm, Objective()), **changes),
        epochs=options.epochs,
        seed=options.seed,
        top_k=options.top_k,
    )
    if not processes().is_main_process:
        return 0
    scores = score_arm(student, profile, options.split)
    print(
        f"{options.arm}, {options.budget} traces, seed {options.seed}: "
        f"{scores[0].score}; {done.steps} steps in {done.seconds:.0f} s",
        flush=True,
    )
    if options.write:
        result = to_result(
            options.arm,
            scores,
            profile=profile,
            seed=options.seed,
            command="python3 -m helpers distill " + " ".join(argv),
            notes=f"{options.budget} traces",
        )
        folder = KD_RESULTS / f"budget_{options.budget:04d}"
        print("written:", Path(write_result(result, folder)).name)
    return 0
