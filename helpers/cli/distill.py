"""`python3 -m helpers distill`."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from helpers.cli.commands import command_parser
from helpers.cli.train import count
from helpers.distill import Objective, pair_profile
from helpers.losses import KINDS
from helpers.models import processes
from helpers.profiles import get_profile, set_seed
from helpers.rebuild import experiments
from helpers.rebuild.arms import KD_RESULTS
from helpers.results import to_result, write_result

CHANGES = ("soft", "temperature", "kind")  # fields of an Objective


def main(argv: list[str]) -> int:
    """`python3 -m helpers distill`: train one arm of a notebook, score it."""
    options = distill_options(argv)
    profile = pair_profile(get_profile(options.profile))
    if options.learning_rate is not None:
        profile = replace(profile, learning_rate=options.learning_rate)
    set_seed(options.seed)
    objective = experiments.OBJECTIVES.get(options.arm, Objective())
    student, done = experiments.train_arm(
        options.arm,
        experiments.budget_traces(profile, options.budget),
        profile=profile,
        objective=replace(objective, **options.changes),
        epochs=options.epochs,
        seed=options.seed,
        top_k=options.top_k,
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
        print("written:", Path(write_result(result, folder)).name)
    return 0


def distill_options(argv: list[str]) -> argparse.Namespace:
    """The options; `changes` holds what differs from the arm's objective."""
    parser = command_parser("distill", "Train and score one arm.")
    parser.add_argument(
        "--arm", default="logit_online", choices=experiments.ARMS
    )
    parser.add_argument("--budget", type=count, default=1000, help="traces")
    parser.add_argument(
        "--epochs", type=count, help=f"default: {experiments.READS} / budget"
    )
    parser.add_argument("--soft", type=float, help="of the objective")
    parser.add_argument("--temperature", type=float, help="of the objective")
    parser.add_argument("--kind", choices=KINDS, help="of the objective")
    parser.add_argument("--top-k", type=count, default=experiments.TOP_K)
    parser.add_argument("--learning-rate", type=float)
    parser.add_argument(
        "--split", default="test", choices=["validation", "test"]
    )
    parser.add_argument("--write", action="store_true", help="keep the result")
    options = parser.parse_args(argv)
    given = {name: getattr(options, name) for name in CHANGES}
    options.changes = {k: v for k, v in given.items() if v is not None}
    if options.write and (options.changes or options.learning_rate):
        parser.error("--write keeps arms as they are defined; leave it away")
    return options
