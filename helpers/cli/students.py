"""The commands that train and score: sft, distill, sweep and evaluate."""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from helpers.cli.commands import command_parser, count
from helpers.distill import pair_profile
from helpers.evaluate import Evaluation, evaluate, format_accuracy, load_arm
from helpers.models import processes
from helpers.problems import load_problems, load_tests
from helpers.profiles import RUNS, Profile, get_profile, set_seed
from helpers.rebuild import experiments, stories
from helpers.results import ARM_NAME, to_result, write_result
from helpers.sft import train_student
from helpers.traces import filter_traces, load_traces
from helpers.widgets.sweeps import SWEEPS

BARE = ("teacher", "teacher_sampled", "student_before")
STORED = {"student_before": "at once", "teacher_sampled": "sampled"}


def sft(argv: list[str]) -> int:
    """Train the student on the sound ones of the traces."""
    parser = command_parser("sft", "Train the student on the traces.")
    add = parser.add_argument
    add("--run", "--name", default="sft")  # torchrun takes --run for its own
    add("--traces", type=Path, help="a trace file")
    add("--limit", type=count, help="of traces")
    add("--overwrite", action="store_true")
    options = parser.parse_args(argv)
    profile = get_profile(options.profile)
    traces = load_traces(options.traces or profile.traces_path)
    sound, reasons = filter_traces(traces)
    print(f"{len(sound)} traces kept, dropped: {dict(reasons)}")
    done = train_student(
        sound[: options.limit],
        profile=profile,
        run=options.run,
        seed=options.seed,
        overwrite=options.overwrite,
    )
    if processes().is_main_process:
        print(
            f"{done.steps} steps in {done.seconds:.0f} s, final loss "
            f"{done.final_loss:.4f}, peak {done.peak_memory_mb:.0f} MiB"
        )
    return 0


def distill(argv: list[str]) -> int:
    """Train one student as 04, 05 or 06 do, score it, keep its result."""
    parser = command_parser("distill", "Train and score one arm.")
    add = parser.add_argument
    arms = [*experiments.ARMS, *stories.NAMES]
    add("--arm", default="logit_online", choices=arms)
    add("--budget", type=count, default="1000", help="traces (05 and 06)")
    add("--split", default="test", choices=["validation", "test"])
    add("--write", action="store_true", help="keep the result")
    options = parser.parse_args(argv)
    if options.write and options.split != "test":
        parser.error("--write is for the test: no --split")
    profile, arm = get_profile(options.profile), options.arm
    set_seed(options.seed)
    if arm in stories.NAMES:
        notes, folder = stories.NAMES[arm], stories.STORIES
        student, done = stories.train_story(arm, profile, options.seed)
    else:
        profile, budget = pair_profile(profile), options.budget
        folder = RUNS / profile.name / "results" / f"budget_{budget:04d}"
        notes = f"{budget} traces"
        student, done = experiments.train_arm(
            arm,
            experiments.budget_traces(profile, budget, arm),
            profile=profile,
            seed=options.seed,
        )
    if not processes().is_main_process:
        return 0
    scores = experiments.score_arm(student, profile, options.split)
    print(
        f"{arm}, {notes}, seed {options.seed}: {scores[options.split].score}; "
        f"{done.steps} steps, {done.seconds:.0f} s"
    )
    if options.write:
        result = to_result(
            arm,
            scores,
            profile=profile,
            seed=options.seed,
            command="python3 -m helpers distill " + " ".join(argv),
            notes=notes,
        )
        print("written:", write_result(result, folder).name)
    return 0


def sweep(argv: list[str]) -> int:
    """Train and score a student at each of several values; keep results."""
    about = "Train short runs at several values of a setting."
    parser = command_parser("sweep", about)
    parser.add_argument("what", nargs="?", default="rank", choices=SWEEPS)
    parser.add_argument("--values", type=float, nargs="+")
    options = parser.parse_args(argv)
    profile = get_profile(options.profile)
    setting, seed = SWEEPS[options.what], options.seed
    for value in options.values or setting.values:
        started = time.perf_counter()
        evaluation = setting.train(value, profile=profile, seed=seed)
        seconds = time.perf_counter() - started
        name = f"{setting.label} {value:g}"
        print(f"{name}: {evaluation.score}, {seconds:.0f} s", flush=True)
        command = f"python3 -m helpers sweep {setting.name} --values {value:g}"
        result = to_result(
            setting.arm(value),
            {"validation": evaluation},
            profile=profile,
            seed=seed,
            command=f"{command} --seed {seed}",
        )
        write_result(result, setting.folder(profile.name))
    return 0


def score(argv: list[str]) -> int:
    """Score one arm on one split; a second run continues a killed one."""
    options = score_options(argv)
    profile = get_profile(options.profile)
    set_seed(options.seed)
    sampled = options.arm == "teacher_sampled"
    mode = "teacher" if sampled else options.mode
    evaluations = evaluate_arm(options, profile, mode)
    if not processes().is_main_process:
        return 0
    command = f"python3 -m helpers evaluate --arm {options.arm}"
    command += f" --mode {options.mode}"
    if options.adapter:
        command += " --adapter ADAPTER"  # a path of this machine: not kept
    thinks = mode == "think"
    result = to_result(
        f"{options.arm}_think" if thinks else options.arm,
        evaluations,
        profile=profile,
        seed=options.seed,
        command=f"{command} --profile {profile.name} --seed {options.seed}",
        mode="think" if thinks else STORED.get(options.arm),
    )
    first = evaluations[options.split]
    print(f"{options.arm} on {options.split}: {first.score}")
    print(f"  outcomes: {dict(first.outcomes)}")
    print(f"  thoughts closed: {first.closed}")
    for name, part in result.splits.items():
        print(f"  {name}: {format_accuracy(part['correct'], part['n'])}")
    if options.write:
        print(f"written: {write_result(result).name}")
    return 0


def evaluate_arm(
    options: argparse.Namespace, profile: Profile, mode: str
) -> dict[str, Evaluation]:
    """The arm on its split; beside `test`, on mini's other ones.

    What is kept is of every problem, else the profile's number of them.
    """
    arm, split = options.arm, options.split
    limit = options.limit or (None if options.write else profile.evaluation)
    sets = {split: load_problems(profile.problems, split, limit=limit)}
    if split == "test":
        sets = load_tests(profile.problems, limit=limit)
    loaded = load_arm(arm, profile, options.adapter)
    folder = profile.run_folder / "evaluation"
    seed = options.seed
    return {
        name: evaluate(
            loaded,
            problems,
            profile=profile,
            mode=mode,
            sampling=profile.sampling(seed) if mode == "teacher" else None,
            batch_size=profile.teacher_batch if "teacher" in arm else None,
            path=folder / f"{arm}-{name}-{mode}-seed{seed}.jsonl",
            progress=arm,
        )
        for name, problems in sets.items()
    }


def score_options(argv: list[str]) -> argparse.Namespace:
    """The options; what could not be written is refused before the work."""
    parser = command_parser("evaluate", "Score one arm on one split.")
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
    if options.adapter and options.arm in BARE:
        parser.error(f"{options.arm} takes no --adapter: leave it out")
    if options.arm == "teacher_sampled" and options.mode != "free":
        parser.error("teacher_sampled has a prompt of its own: no --mode")
    if options.write and (options.limit or options.split != "test"):
        parser.error("--write is for the whole test: no --limit, no --split")
    return options
