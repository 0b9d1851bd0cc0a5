"""`python3 -m helpers evaluate`: one arm on the problems of one split."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from helpers.cli.commands import command_parser
from helpers.evaluate import evaluate, format_accuracy, load_arm
from helpers.models import processes
from helpers.problems import load_problems
from helpers.profiles import get_profile, set_seed
from helpers.results import ARM_NAME, to_result, write_result

STORED = {"student_before": "at once", "teacher_sampled": "sampled"}


def main(argv: list[str]) -> int:
    """`python3 -m helpers evaluate`; a second run continues a killed one."""
    options = parse(argv)
    arm, mode, seed = options.arm, options.mode, options.seed
    profile = get_profile(options.profile)
    set_seed(seed)
    sampled = arm == "teacher_sampled"
    mode = "teacher" if sampled else mode
    settings = {
        "profile": profile,
        "mode": mode,
        "sampling": profile.sampling(seed) if sampled else None,
        "batch_size": profile.teacher_batch if "teacher" in arm else None,
        "progress": arm,
    }
    limit = options.limit or profile.evaluation
    sets = {
        options.split: load_problems(
            profile.problems, options.split, limit=limit
        )
    }
    if profile.problems == "mini" and options.split == "test":
        sets["held_out"] = load_problems(
            "mini", "held_out", limit=options.limit
        )
    loaded = load_arm(arm, profile, options.adapter)
    folder = profile.run_folder / "evaluation"
    evaluations = [
        evaluate(
            loaded,
            problems,
            path=folder / f"{arm}-{split}-{mode}-seed{seed}.jsonl",
            **settings,
        )
        for split, problems in sets.items()
    ]
    if not processes().is_main_process:
        return 0
    thinks = mode == "think"
    command = f"python3 -m helpers evaluate --arm {arm} --mode {options.mode}"
    if options.adapter:
        command += " --adapter ADAPTER"  # a path of this machine: not kept
    result = to_result(
        f"{arm}_think" if thinks else arm,
        evaluations,
        profile=profile,
        seed=seed,
        command=f"{command} --profile {profile.name} --seed {seed}",
        mode="think" if thinks else STORED.get(arm),
    )
    print(f"{arm} on {options.split}: {evaluations[0].score}")
    print(f"  outcomes: {dict(evaluations[0].outcomes)}")
    print(f"  thoughts closed: {evaluations[0].closed}")
    for name, part in result.splits.items():
        print(f"  {name}: {format_accuracy(part['correct'], part['n'])}")
    if options.write:
        print(f"written: {write_result(result).name}")
    return 0


def parse(argv: list[str]) -> Any:
    """The options; what could not be written is refused before the work."""
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
    if not ARM_NAME.fullmatch(options.arm):
        parser.error(f"--arm {options.arm!r}: use lower_case_with_underscores")
    if options.limit is not None and options.limit < 1:
        parser.error("--limit: ask at least one problem, or leave it out")
    if options.arm == "teacher_sampled" and options.mode != "free":
        parser.error("teacher_sampled has a prompt of its own: no --mode")
    if options.write and (options.limit or options.split != "test"):
        parser.error("--write is for the whole test: no --limit, no --split")
    return options
