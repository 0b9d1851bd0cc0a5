"""Measuring in fresh processes, whose peak memory is theirs alone."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from helpers.profiles import ROOT

ROUNDS = 3


def run_child(*command: str, environment: Mapping[str, str] = {}) -> Any:
    """What `python -m command` prints in its last line, from JSON.

    environment: variables that it gets beside this process's. Raises
    RuntimeError with the end of the log of a process that failed.
    """
    done = subprocess.run(
        [sys.executable, "-m", *command],
        cwd=ROOT,
        env=os.environ | environment,
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise RuntimeError(f"{command} failed:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def over(first: Sequence[float], second: Sequence[float]) -> list[float]:
    """The ratio of two figures, round by round."""
    return [a / b for a, b in zip(first, second, strict=True)]


def take_turns(
    *arms: str, measure: Callable[[str], dict[str, float]]
) -> dict[str, dict[str, list[float]]]:
    """The figures of every arm, each a list of ROUNDS values.

    The arms alternate, so that what else the machine does hits all of them.
    """
    rounds = [{arm: measure(arm) for arm in arms} for _ in range(ROUNDS)]
    return {
        arm: {
            figure: [turn[arm][figure] for turn in rounds]
            for figure in rounds[0][arm]
        }
        for arm in arms
    }
