"""`python3 -m helpers`: the commands of the course.

It imports the standard library alone, so it starts on a bare Python. A
command that needs more is run inside the environment, made on first use.
"""

from __future__ import annotations

import difflib
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from importlib import import_module

from helpers import PROFILE_NAMES, select_profile
from helpers.cli import environment
from helpers.cli.commands import COMMANDS, command_parser

INTERRUPTED, TERMINATED = 130, 143


def main(argv: list[str]) -> int:
    """Run one command and return its exit status (2: unknown command)."""
    if not argv or argv[0] in ("-h", "--help", "help"):
        print(overview())
        return 0
    name, options = argv[0], argv[1:]
    if name not in COMMANDS:
        print(_unknown(name), file=sys.stderr)
        return 2
    try:
        return start(name, options)
    except environment.SetupError as error:
        print(f"\n{error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nInterrupted.", file=sys.stderr)
        return INTERRUPTED


def start(name: str, options: list[str]) -> int:
    """Run the command here, or hand it over to the environment's Python."""
    asks_help = "-h" in options or "--help" in options
    if asks_help or COMMANDS[name].bare:
        python = environment.find()
        if python is None:
            return _run_bare(name, options, asks_help=asks_help)
    else:
        python = environment.ensure()
    if python == sys.executable:
        return _run_here(name, options)
    return _hand_over(python, [name, *options])


def overview() -> str:
    """Return the list of commands."""
    lines = [
        "A course on distilling language models. The commands:",
        "",
        *(
            f"  python3 -m helpers {name:<9} {command.summary}"
            for name, command in COMMANDS.items()
        ),
        "",
        "New here? Start with: python3 -m helpers run",
        "Options of a command: python3 -m helpers run --help",
    ]
    return "\n".join(lines)


def _unknown(name: str) -> str:
    close = difflib.get_close_matches(name, COMMANDS, n=1)
    hint = f" Did you mean `{close[0]}`?" if close else ""
    return (
        f"There is no command `{name}`.{hint} "
        "`python3 -m helpers` lists the commands."
    )


def _load(name: str) -> Callable[[list[str]], int]:
    module, function = COMMANDS[name].target.split(":")
    return getattr(import_module(module), function)


def _run_here(name: str, options: list[str]) -> int:
    # The hub's switch must be right before the command imports anything.
    common = command_parser(name, "", add_help=False)
    known, _ = common.parse_known_args(options)
    if known.profile not in PROFILE_NAMES:
        common.error(
            f"DISTILL_PROFILE is {known.profile!r}; "
            f"set it to one of {', '.join(PROFILE_NAMES)}, or unset it"
        )
    select_profile(known.profile)
    os.environ["DISTILL_SEED"] = str(known.seed)
    return _load(name)(options)


def _run_bare(name: str, options: list[str], *, asks_help: bool) -> int:
    try:
        return _run_here(name, options)
    except ImportError:
        if not asks_help:
            raise
    command_parser(name, COMMANDS[name].summary).print_help()
    print(
        "\nThe environment is not made yet, so these are the common options "
        f"only.\n`python3 -m helpers {name}` makes it; then --help shows all."
    )
    return 0


def _hand_over(python: str, argv: list[str]) -> int:
    command = [python, "-m", "helpers", *argv]
    sys.stdout.flush()
    sys.stderr.flush()
    if os.name != "nt":
        os.execv(python, command)  # signals and exit status pass unchanged
    child = subprocess.Popen(command)
    while True:
        try:
            return child.wait()
        except KeyboardInterrupt:
            continue  # the child was interrupted too; let it finish


if __name__ == "__main__":
    # As an exception, so that a set-up stops the program it waits for.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(TERMINATED))
    sys.exit(main(sys.argv[1:]))
