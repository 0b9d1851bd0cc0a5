"""`python3 -m helpers test`: the style checks, then every test.

A test that takes 15 minutes ends its part, as pyproject.toml says; a part
that hangs elsewhere is ended at LIMIT. Either way Python prints where it was.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from threading import Timer

from helpers import CourseError
from helpers.cli.commands import command_parser
from helpers.cli.environment import REPOSITORY
from helpers.cli.run import kill_children

RUNS = REPOSITORY / "data" / "runs" / "tests"
FOLDERS = ["helpers", "tests", "notebooks"]
PYTEST = ["pytest", "-q", "-ra"]
NBVAL = [*PYTEST, "--nbval-lax", "--nbval-current-env"]
NBVAL += ["--nbval-cell-timeout=300"]
NBVAL += ["--nbval-sanitize-with", "tests/sanitize.cfg"]
LIMIT = 55 * 60  # seconds for everything, on a slow machine
WORDS = ("failed", "error", "passed", "skipped")


def main(argv: list[str]) -> int:
    """Run every part, also after a failure; 1 if any part failed."""
    parser = command_parser("test", "check the style, then run every test")
    without = "leave out the tests on the real Gemma 3 270M (250 MB)"
    parser.add_argument("--no-real-weights", action="store_true", help=without)
    options = parser.parse_args(argv)
    end = time.monotonic() + LIMIT
    parts = all_parts()
    if options.no_real_weights:
        del parts["real"]
    else:
        from helpers.cli.fetch import fetch_gemma

        try:
            fetch_gemma()
        except CourseError as error:  # then its tests are skipped
            print(error, file=sys.stderr)
    os.environ["DISTILL_RESULTS_DIR"] = str(RUNS / "results")
    os.environ["OMP_NUM_THREADS"] = "1"  # two parts at once, a core each
    total = run_part("style", parts.pop("style"), end)
    with ThreadPoolExecutor(2) as pool:
        run = partial(run_part, end=end)
        try:
            total += sum(pool.map(run, parts, parts.values()), Counter())
        except BaseException:  # interrupted: nothing is left running
            pool.shutdown(wait=False, cancel_futures=True)
            kill_children()
            raise
    print(", ".join(f"{total[w]} {w}" for w in WORDS if total[w]))
    return 1 if total["status"] else 0


def all_parts() -> dict[str, list[list[str]]]:
    """Each part's commands; long parts first, so that no core waits long."""
    books = sorted((REPOSITORY / "notebooks").glob("*.ipynb"))
    notebooks = {path.stem[:2]: str(path) for path in books}
    # The sliders train where these notebooks do: one after the other.
    training = [notebooks.pop(n) for n in ("03", "04", "05") if n in notebooks]
    ruff = (["check"], ["format", "--check"])
    return {
        "style": [["ruff", *check, *FOLDERS] for check in ruff],
        "training": [[*NBVAL, *training], [*PYTEST, "-m", "browser"]],
        "unit": [[*PYTEST, "-m", "not real_weights and not browser"]],
        "real": [[*PYTEST, "-m", "real_weights"]],
        **{name: [[*NBVAL, path]] for name, path in notebooks.items()},
    }


def run_part(title: str, commands: list[list[str]], end: float) -> Counter:
    """Print what the commands print, behind a title; count the tests.

    end: when to end them, by `time.monotonic`. "status" counts commands that
    failed; a pytest that died without a sum is an error.
    """
    total: Counter[str] = Counter()
    variables = {**os.environ, "UNSLOTH_COMPILE_LOCATION": str(RUNS / title)}
    for command in commands:
        sums: list[tuple[str, str]] = []
        with subprocess.Popen(
            [sys.executable, "-m", *command],
            cwd=REPOSITORY,
            env=variables,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        ) as child:
            abort = partial(child.send_signal, signal.SIGABRT)  # and a stack
            abort = child.kill if os.name == "nt" else abort
            late = Timer(end - time.monotonic(), abort)
            late.start()
            for line in child.stdout or ():
                print(f"{title:<9} {line}", end="", flush=True)
                if re.search(r"\d \w+.* in \d[\d.]*s", line):
                    sums = re.findall(rf"(\d+) ({'|'.join(WORDS)})", line)
            late.cancel()
        total += Counter({word: int(count) for count, word in sums})
        total["status"] += child.returncode != 0
        if child.returncode and not sums and command[0] == "pytest":
            total["error"] += 1
            print(f"{title} hung or died: see the stack.", file=sys.stderr)
    return total
