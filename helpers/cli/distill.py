"""`python3 -m helpers distill`: one arm of notebook 05 or 06."""

from __future__ import annotations

import argparse
from dataclasses import replace

from helpers.cli.commands import command_parser, count, field
from helpers.distill import Objective, pair_profile
from helpers.models import processes
from helpers.profiles import get_profile, set_seed
from helpers.rebuild import experiments
from helpers.rebuild.arms import KD_RESULTS
from helpers.results import to_result, write_result


def main(argv: list[str]) -> int:
    """Train one arm, score it, and keep its result if told to."""
    options = parse(argv)
    profile = pair_profile(get_profile(options.profile))
    objective = experiments.OBJECTIVES.get(options.arm, Objective())
    if options.temperature is not None:
        objective = replace(objective, temperature=options.temperature)
    set_seed(options.seed)
    student, done = experiments.train_arm(
        options.arm,
        experiments.budget_traces(profile, options.budget),
        profile=profile,
        objective=objective,
        epochs=options.epochs,
        seed=options.seed,
    )
    if not processes().is_main_process:
        return 0
    scores = experiments.score_arm(student, profile, options.split)
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
        print("written:", write_result(result, folder).name)
    return 0


def parse(argv: list[str]) -> argparse.Namespace:
    """The options; --write is refused where the arm would be another one."""
    parser = command_parser("distill", "Train and score one arm.")
    add = parser.add_argument
    add("--arm", default="logit_online", choices=experiments.ARMS)
    add("--budget", type=count, default=1000, help="traces")
    reads = f"default: {experiments.READS} / budget"
    add("--epochs", type=field("epochs"), help=reads)
    add("--temperature", type=float, help="of the objective")
    add("--split", default="test", choices=["validation", "test"])
    add("--write", action="store_true", help="keep the result")
    options = parser.parse_args(argv)
    changed = options.epochs or options.temperature
    if options.write and (changed or options.split != "test"):
        parser.error("--write keeps arms as they are defined; leave it away")
    return options
