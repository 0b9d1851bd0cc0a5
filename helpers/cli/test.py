"""`python3 -m helpers test`: the style checks, then every test."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

from helpers.cli.commands import command_parser
from helpers.cli.environment import REPOSITORY
from helpers.cli.run import children

RUNS = REPOSITORY / "data" / "runs" / "tests"
FOLDERS = ["helpers", "tests", "notebooks"]
NBVAL = ["--nbval-lax", "--nbval-current-env", "--nbval-cell-timeout=300"]
NBVAL += ["--nbval-sanitize-with", "tests/sanitize.cfg"]


def main(argv: list[str]) -> int:
    """Run every part, also after a failure; 1 if any part failed."""
    parser = command_parser("test", "check the style, then run every test")
    parser.add_argument(
        "--no-real-weights",
        action="store_true",
        help="leave out the tests on the real Gemma 3 270M (250 MB)",
    )
    options = parser.parse_args(argv)
    real = " and not real_weights" if options.no_real_weights else ""
    if not real:
        sys.path.insert(0, str(REPOSITORY / "tests"))
        from real_weights import fetch

        fetch()
    os.environ["DISTILL_PROFILE"] = options.profile
    os.environ["DISTILL_SEED"] = str(options.seed)
    os.environ["DISTILL_RESULTS_DIR"] = str(RUNS / "results")
    # As many parts at once as there are cores, two at most, a thread each;
    # the longest first.
    os.environ["OMP_NUM_THREADS"] = "1"
    heavy = "(real_weights or browser)"
    notebooks = sorted((REPOSITORY / "notebooks").glob("*.ipynb"))
    parts = {
        "unit": ["pytest", "-q", "-ra", "tests", "-m", f"not {heavy}"],
        "notebooks": ["pytest", "-q", "-ra", *NBVAL, *map(str, notebooks)],
        "heavy": ["pytest", "-q", "-ra", "tests", "-m", heavy + real],
    }
    style = [["check"], ["format", "--check"]]
    counts = [run_part("style", ["ruff", *s, *FOLDERS]) for s in style]
    with ThreadPoolExecutor(2) as pool:
        try:
            counts += pool.map(run_part, parts, parts.values())
        except BaseException:  # interrupted: nothing is left running
            for child in children():
                child.kill()
            raise
    total = sum(counts, Counter())
    words = {"failed": "failed", "error": "errors", "passed": "passed"}
    words["skip"] = "skipped"
    shown = [f"{total[key]} {words[key]}" for key in words if total[key]]
    print(", ".join(shown))
    return 1 if total["status"] else 0


def run_part(title: str, command: list[str]) -> Counter[str]:
    """Print what a part prints, behind its title; count its tests.

    "status" counts the parts that failed.
    """
    variables = {**os.environ, "UNSLOTH_COMPILE_LOCATION": str(RUNS / title)}
    found: list[tuple[str, str]] = []
    with subprocess.Popen(
        [sys.executable, "-m", *command],
        cwd=REPOSITORY,
        env=variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    ) as child:
        for line in child.stdout or ():
            print(f"{title:<9} {line}", end="", flush=True)
            if re.search(r"\d \w+.* in \d[\d.]*s", line):
                found = re.findall(r"(\d+) (failed|error|passed|skip)", line)
    count = Counter({word: int(number) for number, word in found})
    return count + Counter(status=int(child.returncode != 0))
