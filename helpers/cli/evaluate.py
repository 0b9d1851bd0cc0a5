"""`python3 -m helpers evaluate`: one arm on the problems of one split."""

from __future__ import annotations

import argparse
from pathlib import Path

from helpers.cli.commands import command_parser, count
from helpers.evaluate import evaluate, format_accuracy, load_arm
from helpers.models import processes
from helpers.problems import load_problems
from helpers.profiles import Profile, get_profile, set_seed
from helpers.results import ARM_NAME, to_result, write_result

STORED = {"student_before": "at once", "teacher_sampled": "sampled"}


def main(argv: list[str]) -> int:
    """Score the arm; a second run continues a killed one."""
    options = parse(argv)
    arm, split, seed = options.arm, options.split, options.seed
    profile = get_profile(options.profile)
    set_seed(seed)
    sampled = arm == "teacher_sampled"
    mode = "teacher" if sampled else options.mode
    sets = problem_sets(profile, split, options.limit)
    loaded = load_arm(arm, profile, options.adapter)
    folder = profile.run_folder / "evaluation"
    evaluations = [
        evaluate(
            loaded,
            problems,
            profile=profile,
            mode=mode,
            sampling=profile.sampling(seed) if sampled else None,
            batch_size=profile.teacher_batch if "teacher" in arm else None,
            path=folder / f"{arm}-{name}-{mode}-seed{seed}.jsonl",
            progress=arm,
        )
        for name, problems in sets.items()
    ]
    if not processes().is_main_process:
        return 0
    command = f"python3 -m helpers evaluate --arm {arm} --mode {options.mode}"
    if options.adapter:
        command += " --adapter ADAPTER"  # a path of this machine: not kept
    thinks = mode == "think"
    result = to_result(
        f"{arm}_think" if thinks else arm,
        evaluations,
        profile=profile,
        seed=seed,
        command=f"{command} --profile {profile.name} --seed {seed}",
        mode="think" if thinks else STORED.get(arm),
    )
    print(f"{arm} on {split}: {evaluations[0].score}")
    print(f"  outcomes: {dict(evaluations[0].outcomes)}")
    print(f"  thoughts closed: {evaluations[0].closed}")
    for name, part in result.splits.items():
        print(f"  {name}: {format_accuracy(part['correct'], part['n'])}")
    if options.write:
        print(f"written: {write_result(result).name}")
    return 0


def problem_sets(
    profile: Profile, split: str, limit: int | None
) -> dict[str, list[dict]]:
    """The split's problems, and beside `test` those of kinds held out."""
    most = limit or profile.evaluation
    sets = {split: load_problems(profile.problems, split, limit=most)}
    if profile.problems == "mini" and split == "test":
        sets["held_out"] = load_problems("mini", "held_out", limit=limit)
    return sets


def parse(argv: list[str]) -> argparse.Namespace:
    """The options; what could not be written is refused before the work."""
    parser = command_parser("evaluate", __doc__)
    add = parser.add_argument
    add("--arm", default="student_after")
    add("--adapter", type=Path, help="a checkpoint folder")
    add("--split", default="test", choices=["validation", "test"])
    add("--mode", default="free", choices=["free", "think"])
    add("--limit", type=count, help="how many problems")
    add("--write", action="store_true", help="write a results file")
    options = parser.parse_args(argv)
    if not ARM_NAME.fullmatch(options.arm):
        parser.error(f"--arm {options.arm!r}: use lower_case_with_underscores")
    if options.arm == "teacher_sampled" and options.mode != "free":
        parser.error("teacher_sampled has a prompt of its own: no --mode")
    if options.write and (options.limit or options.split != "test"):
        parser.error("--write is for the whole test: no --limit, no --split")
    return options
