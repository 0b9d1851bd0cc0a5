"""`python3 -m helpers sweep`: short trainings at several settings."""

from __future__ import annotations

import time

from helpers.cli.commands import command_parser
from helpers.profiles import get_profile
from helpers.results import to_result, write_result
from helpers.widgets.sweeps import SWEEPS


def main(argv: list[str]) -> int:
    """Train and score a student at each value; keep the results."""
    parser = command_parser("sweep", __doc__)
    parser.add_argument("what", nargs="?", default="rank", choices=SWEEPS)
    parser.add_argument("--values", type=float, nargs="+")
    options = parser.parse_args(argv)
    profile = get_profile(options.profile)
    sweep, seed = SWEEPS[options.what], options.seed
    for value in options.values or sweep.values:
        started = time.perf_counter()
        evaluation = sweep.train(value, profile=profile, seed=seed)
        seconds = time.perf_counter() - started
        name = f"{sweep.label} {value:g}"
        print(f"{name}: {evaluation.score}, {seconds:.0f} s", flush=True)
        command = f"python3 -m helpers sweep {sweep.name} --values {value:g}"
        result = to_result(
            sweep.arm(value),
            [evaluation],
            profile=profile,
            seed=seed,
            command=f"{command} --seed {seed}",
        )
        write_result(result, sweep.folder(profile.name))
    return 0
