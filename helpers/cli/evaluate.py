"""`python3 -m helpers evaluate`."""

from __future__ import annotations

from pathlib import Path

from helpers.cli.commands import command_parser
from helpers.evaluate import (
    evaluate,
    format_accuracy,
    load_arm,
    splits_of,
    to_result,
)
from helpers.problems import load_problems
from helpers.profiles import get_profile, set_seed
from helpers.results import write_result


def main(argv: list[str]) -> int:
    """`python3 -m helpers evaluate`."""
    parser = command_parser("evaluate", __doc__)
    parser.add_argument("--arm", default="student_after")
    parser.add_argument("--adapter", type=Path, help="a checkpoint folder")
    parser.add_argument(
        "--split", default="test", choices=["validation", "test"]
    )
    parser.add_argument("--mode", default="free", choices=["free", "think"])
    parser.add_argument("--limit", type=int)
    parser.add_argument(
        "--write", action="store_true", help="write a results file"
    )
    options = parser.parse_args(argv)
    profile = get_profile(options.profile)
    set_seed(options.seed)
    loaded = load_arm(options.arm, profile, options.adapter)
    rows = profile.teacher_batch if options.arm == "teacher" else None
    limit = options.limit or profile.evaluation
    sets = [load_problems(profile.problems, options.split, limit=limit)]
    if profile.problems == "mini" and options.split == "test":
        sets.append(load_problems("mini", "held_out", limit=options.limit))
    evaluations = [
        evaluate(
            loaded,
            problems,
            profile=profile,
            mode=options.mode,
            batch_size=rows,
            progress=options.arm,
        )
        for problems in sets
    ]
    print(f"{options.arm} on {options.split}: {evaluations[0].score}")
    print(f"  outcomes: {dict(evaluations[0].outcomes)}")
    print(f"  thoughts closed: {evaluations[0].closed}")
    for name, counts in splits_of(*evaluations).items():
        print(f"  {name}: {format_accuracy(counts['correct'], counts['n'])}")
    if options.write:
        adapter = str(options.adapter)  # a path of this machine: not kept
        chosen = ["ADAPTER" if x == adapter else x for x in argv]
        command = " ".join(["python3 -m helpers evaluate", *chosen])
        result = to_result(
            options.arm,
            evaluations,
            profile=profile,
            seed=options.seed,
            command=command,
        )
        print(f"written: {write_result(result).name}")
    return 0
