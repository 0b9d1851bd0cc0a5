"""`python3 -m helpers traces`: who writes them is an option."""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

from helpers.cli.commands import command_parser
from helpers.models import processes
from helpers.profiles import Profile, get_profile
from helpers.traces import audit_traces

ENGINES = ("transformers", "vllm")


def at_least_one(text: str) -> int:
    """A count, for argparse."""
    if not text.strip().isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r}: give 1 or more")
    return int(text)


def seconds(text: str) -> float:
    """A time to wait, for argparse."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value <= 86_400:
        raise argparse.ArgumentTypeError(f"{text!r}: give 1 to 86400 seconds")
    return value


def shard(text: str) -> tuple[int, int]:
    """`i/n`, for argparse."""
    which, _, count = text.partition("/")
    if not (which.isdigit() and count.isdigit() and int(which) < int(count)):
        raise argparse.ArgumentTypeError(
            f"{text!r}: of 8 the first is 0/8, the last 7/8"
        )
    return int(which), int(count)


def main(argv: list[str]) -> int:
    """`python3 -m helpers traces`."""
    from helpers.problems import load_problems

    parser = command_parser("traces", __doc__)
    parser.add_argument("--limit", type=at_least_one, help="how many problems")
    parser.add_argument("--output", type=Path, help="the trace file")
    parser.add_argument("--server", help="an OpenAI-compatible URL, .../v1")
    parser.add_argument("--model", help="the teacher's name on that server")
    parser.add_argument("--concurrency", type=at_least_one, default=16)
    parser.add_argument(
        "--timeout", type=seconds, default=600, help="seconds for one answer"
    )
    parser.add_argument("--engine", choices=ENGINES, default=ENGINES[0])
    parser.add_argument(
        "--tensor-parallel", type=at_least_one, help="GPUs of a vllm engine"
    )
    parser.add_argument(
        "--shard", type=shard, help="a vllm engine's share of the problems"
    )
    options = parser.parse_args(argv)
    if bool(options.server) != bool(options.model):
        parser.error("--server and --model belong together")
    if options.server and options.engine != ENGINES[0]:
        parser.error("--server computes elsewhere: leave --engine out")
    if options.server and processes().num_processes > 1:
        parser.error("--server wants one process: leave the launcher out")
    if options.engine != "vllm" and (options.tensor_parallel or options.shard):
        parser.error("--tensor-parallel and --shard belong to --engine vllm")
    profile = get_profile(options.profile)
    problems = load_problems(
        profile.problems, "train", limit=options.limit or profile.traces
    )
    path = options.output or profile.traces_path
    known = path.read_bytes().count(b"\n") if path.exists() else 0
    started = time.perf_counter()
    traces = write(options, problems, path, profile)
    if traces is None:
        print("This share is written; others are still at work.")
    elif processes().is_main_process:
        for name, value in audit_traces(traces).items():
            print(f"{name:>22}  {value}")
    if processes().num_processes == 1 and not options.shard:
        print(pace(traces[known:], time.perf_counter() - started))
    return 0


def write(
    options: argparse.Namespace,
    problems: list[dict],
    path: Path,
    profile: Profile,
) -> Any:
    """The traces by whoever the options name; imports only what that needs."""
    given = {"profile": profile, "seed": options.seed}
    if options.server:
        from helpers.scale.server import Server, server_traces

        server = Server(
            options.server,
            options.model,
            concurrency=options.concurrency,
            timeout=options.timeout,
        )
        return server_traces(problems, server, path, **given)
    if options.engine == "vllm":
        from helpers.scale.vllm import vllm_traces

        return vllm_traces(
            problems,
            path,
            gpus=options.tensor_parallel or 1,
            shard=options.shard or (0, 1),
            **given,
        )
    from helpers.models import load_teacher
    from helpers.scale.shards import shared_traces

    return shared_traces(problems, load_teacher(profile), path, **given)


def pace(rows: dict[str, list], seconds: float) -> str:
    """Tokens a trace and a second, of the traces that this run has added.

    rows: a slice of a Dataset. The time to load the teacher is in it.
    """
    lengths = rows.get("completion_tokens", [])
    if not lengths:
        return "nothing was missing"
    mean = sum(lengths) / len(lengths)
    return (
        f"{len(lengths)} new traces: {mean:.0f} tokens each, "
        f"{sum(lengths) / seconds:.0f} tokens/s with loading"
    )
