"""`python3 -m helpers traces`: who writes them is an option."""

from __future__ import annotations

import argparse
import re
import time
from codecs import BOM_UTF8
from itertools import chain
from pathlib import Path
from typing import Any

from helpers import CourseError
from helpers.cli.commands import command_parser, count
from helpers.files.disk import ordinary, write_atomic
from helpers.files.traces import TraceFileError, parse_rows
from helpers.models import processes
from helpers.problems import load_problems, load_tests
from helpers.profiles import Profile, get_profile
from helpers.traces import audit_traces


def main(argv: list[str]) -> int:
    """Let the teacher answer; say how good and how fast it was."""
    options = parse(argv)
    if options.repair:
        return repair(options.repair)
    profile = get_profile(options.profile)
    problems = load_problems(
        profile.problems, "train", limit=options.limit or profile.traces
    )
    path = options.output or profile.traces_path
    old = ordinary(path).read_bytes().count(b"\n") if path.exists() else 0
    started = time.perf_counter()
    traces = write(options, problems, path, profile)
    seconds = time.perf_counter() - started
    if processes().is_main_process:
        tests = chain.from_iterable(load_tests(profile.problems).values())
        test = [problem["question"] for problem in tests]
        audit = audit_traces(traces, test_questions=test)
        for name, value in audit.items():
            print(f"{name:>22}  {value}")
    if processes().num_processes == 1:
        lengths = traces[old:].get("completion_tokens", [])
        pace = f"{sum(lengths) / seconds:.0f} tokens/s with loading"
        pace = f"{len(lengths)} new traces: {pace}"
        print(pace if lengths else "nothing was missing")
    return 0


def parse(argv: list[str]) -> argparse.Namespace:
    """The options; those that contradict each other are refused."""
    parser = command_parser("traces", __doc__)
    add = parser.add_argument
    add("--limit", type=count, help="how many problems")
    add("--output", type=Path, help="the trace file")
    add("--repair", type=Path, metavar="FILE", help="copy its good lines")
    add("--server", help="an OpenAI-compatible URL, .../v1")
    add("--model", help="the teacher's name on that server")
    add("--concurrency", type=count, default=16, help="requests at once")
    add("--timeout", type=count, default=600, help="seconds an answer")
    options = parser.parse_args(argv)
    if bool(options.server) != bool(options.model):
        parser.error("--server and --model belong together")
    if options.server and processes().num_processes > 1:
        parser.error("--server wants one process: leave the launcher out")
    return options


def repair(path: Path) -> int:
    """Copy the good lines into a new file; a list says what is not there.

    Raises CourseError where a file of these names is there already.
    """
    lines = re.split(rb"\r\n|\r|\n", ordinary(path).read_bytes())
    good, left = {}, []
    for number, line in enumerate(lines, start=1):
        line = line.removeprefix(BOM_UTF8).strip()
        try:
            for row in parse_rows(line + b"\n", path.name) if line else ():
                if row["id"] in good:
                    raise TraceFileError from ValueError("its id came before")
                good[row["id"]] = line + b"\n"
        except TraceFileError as error:
            left.append(f"line {number}: {error.__cause__}\n")
    new, out = (path.with_suffix(s) for s in (".good.jsonl", ".left_out.txt"))
    for name, text in (new, b"".join(good.values())), (out, "".join(left)):
        if name.exists():
            raise CourseError(f"{name.name} is there already: move it away.")
        write_atomic(name, text)
    print(f"{new.name}: {len(good)} traces. Left out: {len(left)}, {out.name}")
    print("Train on it with --traces. It goes on where no line is missing.")
    return 0


def write(
    options: argparse.Namespace,
    problems: list[dict],
    path: Path,
    profile: Profile,
) -> Any:
    """The traces by whoever the options name; imports only what that needs."""
    given: dict[str, Any] = {"profile": profile, "seed": options.seed}
    if options.server:
        from helpers.scale.server import Server, server_traces

        server = Server(
            options.server,
            options.model,
            concurrency=options.concurrency,
            timeout=options.timeout,
        )
        return server_traces(problems, server, path, **given)
    from helpers.models import load_teacher
    from helpers.scale.shards import shared_traces

    return shared_traces(problems, load_teacher(profile), path, **given)
