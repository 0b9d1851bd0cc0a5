"""What `python3 -m helpers` does: find the command, and the Python for it.

It imports the standard library alone, so it starts on a bare Python. A
command that needs more is run inside the environment, made on first use.
"""

from __future__ import annotations

import difflib
import os
import signal
import subprocess
import sys
import traceback

from helpers import CourseError, select_profile
from helpers.cli import environment
from helpers.cli.commands import COMMANDS, command_parser, print_overview

REFUSED, INTERRUPTED, TERMINATED = 2, 130, 143


def main(argv: list[str]) -> int:
    """Run one command; its exit status, or 2 with a sentence on stderr."""
    try:
        name, *options = argv or ["help"]
        status = start(name, options)
        sys.stdout.flush()  # a reader that has gone is noticed here
        return status
    except KeyboardInterrupt:
        print("\nInterrupted.", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:  # the output's reader, as `head`, has enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (CourseError, OSError) as error:
        if "--debug" in argv:
            traceback.print_exc()
        else:
            print(sentence(error), file=sys.stderr)
        return REFUSED


def start(name: str, options: list[str]) -> int:
    """Run the command here, or hand it over to the environment's Python.

    Raises CourseError for a command that does not exist.
    """
    if name in ("-h", "--help", "help"):
        return print_overview()
    if name not in COMMANDS:
        close = difflib.get_close_matches(name, COMMANDS, n=1)
        hint = f" Did you mean `{close[0]}`?" if close else ""
        raise CourseError(
            f"There is no command `{name}`.{hint} "
            "`python3 -m helpers` lists the commands."
        )
    command = COMMANDS[name]
    if command.bare:
        python = environment.find() or environment.check_python()
    elif {"-h", "--help"}.isdisjoint(options):
        python = environment.ensure()
    else:
        python = environment.find()
    if python is None:
        about = f"{command.summary}. There is more once the course is set up."
        command_parser(name, about).print_help()
        return 0
    if python != sys.executable:
        return _hand_over(python, [name, *options])
    # What a profile switches must be right before the command imports torch.
    common = command_parser(name, "", add_help=False)
    known, _ = common.parse_known_args(options)
    select_profile("mini" if command.mini else known.profile)
    os.environ["DISTILL_SEED"] = str(known.seed)
    return command.main(options)


def sentence(error: CourseError | OSError) -> str:
    """An error as a user wants to read it: no number, the file's name."""
    if not isinstance(error, OSError) or not error.strerror:
        return str(error)
    where = f": {error.filename}" if error.filename else ""
    return f"{error.strerror}{where} (--debug shows where it was raised)."


def _hand_over(python: str, argv: list[str]) -> int:
    command = [python, "-m", "helpers", *argv]
    sys.stdout.flush()
    sys.stderr.flush()
    if os.name != "nt":
        os.execv(python, command)  # signals and exit status pass unchanged
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the child has it as well
    return subprocess.call(command)
