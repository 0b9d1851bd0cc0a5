"""`python3 -m helpers test`: the style checks, then every test."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import NamedTuple

from helpers.cli.commands import command_parser
from helpers.cli.environment import REPOSITORY

RUNS = REPOSITORY / "data" / "runs" / "tests"


class Part(NamedTuple):
    """One program of the suite, and where it counts its tests."""

    title: str
    command: list[str]
    report: Path | None = None


class Count(NamedTuple):
    """How many tests passed, failed and were skipped."""

    passed: int = 0
    failed: int = 0
    skipped: int = 0


def main(argv: list[str]) -> int:
    """Run every part, also after a failure; 1 if any part failed."""
    parser = command_parser("test", "check the style, then run every test")
    parser.add_argument(
        "--no-real-weights",
        action="store_true",
        help="leave out the tests on the real Gemma 3 270M (250 MB)",
    )
    options = parser.parse_args(argv)
    if not options.no_real_weights:
        from real_weights import fetch

        fetch()
    RUNS.mkdir(parents=True, exist_ok=True)
    environment = {
        **os.environ,
        "DISTILL_PROFILE": options.profile,
        "DISTILL_SEED": str(options.seed),
        "DISTILL_RESULTS_DIR": str(RUNS / "results"),
    }
    failed, lines, total = False, [], Count()
    for part in parts(real_weights=not options.no_real_weights):
        print(f"\n== {part.title}", flush=True)
        start = time.monotonic()
        status, count = run_part(part, environment)
        seconds = time.monotonic() - start
        failed = failed or status != 0
        verdict = "FAIL" if status else "OK"
        lines.append(f"{verdict:<5}{part.title:<20}{seconds:>7.1f} s")
        total = Count(*map(sum, zip(total, count, strict=True)))
    print("\n" + "\n".join(lines))
    print(
        f"{total.passed} passed, {total.failed} failed, "
        f"{total.skipped} skipped"
    )
    return 1 if failed else 0


def parts(*, real_weights: bool) -> list[Part]:
    """Return the parts of the suite, those for which there are files."""
    python = [sys.executable, "-m"]
    names = ("helpers", "tests", "notebooks")
    folders = [name for name in names if (REPOSITORY / name).is_dir()]
    pytest = [*python, "pytest", "-q", "-ra"]
    unit = [*pytest, "tests", f"--junitxml={RUNS / 'unit.xml'}"]
    if not real_weights:
        unit += ["-m", "not real_weights"]
    found = [
        Part("ruff check", [*python, "ruff", "check", *folders]),
        Part("ruff format", [*python, "ruff", "format", "--check", *folders]),
        Part("unit tests", unit, RUNS / "unit.xml"),
    ]
    notebooks = sorted((REPOSITORY / "notebooks").glob("*.ipynb"))
    if notebooks:
        report = RUNS / "notebooks.xml"
        command = [*pytest, "--nbval-lax", "--nbval-current-env"]
        command += ["--nbval-cell-timeout=300"]
        command += ["--nbval-sanitize-with", "tests/sanitize.cfg"]
        command += [f"--junitxml={report}"]
        command += [str(p.relative_to(REPOSITORY)) for p in notebooks]
        found.append(Part("notebooks", command, report))
    return found


def run_part(part: Part, environment: dict[str, str]) -> tuple[int, Count]:
    """Run one part in the course's folder; return its status and count."""
    if part.report is not None:
        part.report.unlink(missing_ok=True)
    done = subprocess.run(part.command, cwd=REPOSITORY, env=environment)
    if part.report is None:
        return done.returncode, Count()
    return done.returncode, read_count(part.report)


def read_count(report: Path) -> Count:
    """Add up pytest's junit file; a missing one counts as a failure."""
    try:
        suites = list(ElementTree.parse(report).getroot().iter("testsuite"))
    except (OSError, ElementTree.ParseError):
        return Count(failed=1)
    values = {
        name: sum(int(suite.get(name, 0)) for suite in suites)
        for name in ("tests", "failures", "errors", "skipped")
    }
    failed = values["failures"] + values["errors"]
    skipped = values["skipped"]
    return Count(values["tests"] - failed - skipped, failed, skipped)
