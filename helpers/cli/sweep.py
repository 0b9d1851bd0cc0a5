"""`python3 -m helpers sweep`: short trainings at several settings."""

from __future__ import annotations

from helpers.cli.commands import command_parser
from helpers.profiles import get_profile
from helpers.results import to_result, write_result
from helpers.widgets.sweeps import RESULTS, SWEEPS, find_sweep


def main(argv: list[str]) -> int:
    """Train and score a student at each value; keep the results."""
    parser = command_parser("sweep", __doc__)
    parser.add_argument("what", nargs="?", default="rank", choices=SWEEPS)
    parser.add_argument("--values", type=float, nargs="+")
    options = parser.parse_args(argv)
    profile = get_profile(options.profile)
    sweep = find_sweep(options.what)
    for value in options.values or sweep.values:
        point, evaluation = sweep.train(
            value, profile=profile, seed=options.seed
        )
        name = f"{sweep.label} {value:g}"
        print(f"{name}: {evaluation.score}, {point.seconds:.0f} s", flush=True)
        command = f"python3 -m helpers sweep {sweep.name} --values {value:g}"
        result = to_result(
            sweep.arm(value),
            [evaluation],
            profile=profile,
            seed=options.seed,
            command=f"{command} --seed {options.seed}",
        )
        write_result(result, RESULTS / sweep.name)
    return 0
