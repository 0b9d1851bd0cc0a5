"""The table of commands and the options that all of them share."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from pkgutil import resolve_name
from typing import Any, NamedTuple

from helpers import DEFAULT_SEED, PROFILE_NAMES, CourseError, current_profile


class Command(NamedTuple):
    """One sub-command: where its `(argv) -> int` is defined, and its job."""

    where: str  # module:function, below helpers
    summary: str
    bare: bool = False  # can it run before the environment exists?
    mini: bool = False  # is it about the mini lab, in every profile?

    def main(self, argv: list[str]) -> int:
        """Run it; its exit status."""
        return resolve_name(f"helpers.{self.where}")(argv)


COMMANDS = {
    "run": Command("cli.run:main", "execute the notebooks, show the results"),
    "test": Command("cli.test:main", "check the style, then run every test"),
    "lab": Command("cli.lab:main", "open the notebooks in JupyterLab"),
    "doctor": Command(
        "cli.doctor:main", "check this machine, with cures", True
    ),
    "traces": Command("cli.traces:main", "let the teacher answer problems"),
    "sft": Command("cli.students:sft", "train the student on the traces"),
    "distill": Command("cli.students:distill", "train and score one arm"),
    "sweep": Command("cli.students:sweep", "train at several settings"),
    "evaluate": Command("cli.students:score", "measure a model"),
    "fetch": Command("cli.fetch:main", "download the real Gemma 3 270M"),
    "compare": Command("rebuild.compare:main", "compare signals", mini=True),
    "prejudice": Command(
        "rebuild.prejudice:main", "follow a wrong teacher", mini=True
    ),
    "half": Command("rebuild.half_runs:main", "repair half of that Gemma"),
    "bench": Command("rebuild.bench:main", "measure memory and time"),
    "results": Command("cli.results:main", "print the measured results"),
    "hosted": Command("cli.hosted:main", "prepare for Colab and Kaggle", True),
    "minilab": Command("rebuild.minilab:main", "rebuild the mini lab"),
}


def command_parser(
    name: str, description: str, *, add_help: bool = True
) -> argparse.ArgumentParser:
    """A parser that has --help, --profile, --seed and --debug already."""
    parser = argparse.ArgumentParser(
        prog=f"python3 -m helpers {name}",
        description=description,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        add_help=add_help,
        allow_abbrev=False,
    )
    parser.add_argument(
        "--profile",
        choices=PROFILE_NAMES,
        default=current_profile(),
        help="the size of models and data",
    )
    parser.add_argument(
        "--seed",
        type=field("seed"),  # argparse also checks a default that is text
        default=os.environ.get("DISTILL_SEED") or str(DEFAULT_SEED),
        help="the seed of everything random",
    )
    parser.add_argument(
        "--debug",
        action="store_true",
        help="show where an error was raised, not its sentence alone",
    )
    return parser


def field(name: str) -> Callable[[str], Any]:
    """The `type` of an option that stands for that field of the profile.

    So one range holds for the option and for its environment variable.
    """
    variable = f"DISTILL_{name.upper()}"

    def convert(text: str) -> Any:
        from helpers.profiles import get_profile  # not on an old Python

        try:  # an empty variable would be one that is not set
            changed = get_profile("mini", {variable: text or "nothing"})
        except CourseError as error:
            reason = str(error).removeprefix(f"{variable}=")
            raise argparse.ArgumentTypeError(reason) from None
        return getattr(changed, name)

    return convert


count = field("traces")  # of whatever: a whole number from 1 to a million


def print_overview() -> int:
    """The list of commands."""
    print("A course on distilling language models. The commands:\n")
    for name, command in COMMANDS.items():
        print(f"  python3 -m helpers {name:<9} {command.summary}")
    print("\nNew here? Start with: python3 -m helpers run")
    print("Options of a command: python3 -m helpers run --help")
    return 0
