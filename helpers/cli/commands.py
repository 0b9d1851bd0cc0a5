"""The table of commands and the options that all of them share."""

from __future__ import annotations

import argparse
import os
from dataclasses import dataclass

from helpers import DEFAULT_SEED, PROFILE_NAMES, current_profile


@dataclass(frozen=True)
class Command:
    """One sub-command: where its `main(argv) -> int` lives, what it does."""

    target: str
    summary: str
    bare: bool = False  # can it run before the environment exists?


COMMANDS = {
    "run": Command(
        "helpers.cli.run:main",
        "execute the notebooks in order and print the measured results",
    ),
    "test": Command(
        "helpers.cli.test:main", "check the style, then run every test"
    ),
    "lab": Command(
        "helpers.cli.lab:main",
        "open the notebooks in JupyterLab on this machine",
    ),
    "doctor": Command(
        "helpers.cli.doctor:main",
        "check this machine, one line a check, with the cure",
        bare=True,
    ),
    "traces": Command(
        "helpers.cli.traces:main", "let the teacher answer the problems"
    ),
    "sft": Command(
        "helpers.cli.train:main", "train the student on the traces"
    ),
    "distill": Command(
        "helpers.cli.distill:main",
        "train and score one arm of notebook 05",
    ),
    "sweep": Command(
        "helpers.cli.sweep:main", "train short runs at several settings"
    ),
    "evaluate": Command(
        "helpers.cli.evaluate:main", "measure a model on the test problems"
    ),
    "bench": Command(
        "helpers.rebuild.bench:main", "measure memory and time side by side"
    ),
    "results": Command(
        "helpers.cli.results:main", "print the table of measured results"
    ),
    "hosted": Command(
        "helpers.cli.hosted:main",
        "links and a first cell for Colab and Kaggle",
        bare=True,
    ),
    "minilab": Command(
        "helpers.rebuild.minilab:main", "rebuild the mini problems and models"
    ),
}


def command_parser(
    name: str, description: str, *, add_help: bool = True
) -> argparse.ArgumentParser:
    """Return a parser that has --help, --profile and --seed already."""
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
        type=int,  # argparse converts, and checks, a default that is text
        default=os.environ.get("DISTILL_SEED") or str(DEFAULT_SEED),
        help="the seed of everything random",
    )
    return parser
