"""`python3 -m helpers traces`: who writes them is an option."""

from __future__ import annotations

import time
from pathlib import Path

from helpers.cli.commands import command_parser
from helpers.models import processes
from helpers.profiles import get_profile
from helpers.scale.server import Server
from helpers.traces import audit_traces, server_traces, shared_traces

ENGINES = ("transformers", "vllm")


def main(argv: list[str]) -> int:
    """`python3 -m helpers traces`."""
    from helpers.models import load_teacher
    from helpers.problems import load_problems
    from helpers.scale.vllm import vllm_traces

    parser = command_parser("traces", __doc__)
    parser.add_argument("--limit", type=int, help="number of problems")
    parser.add_argument("--output", type=Path, help="the trace file")
    parser.add_argument("--server", help="an OpenAI-compatible URL, .../v1")
    parser.add_argument("--model", help="the teacher's name on that server")
    parser.add_argument("--concurrency", type=int, default=16)
    parser.add_argument(
        "--timeout", type=float, default=600, help="seconds for one answer"
    )
    parser.add_argument("--engine", choices=ENGINES, default=ENGINES[0])
    parser.add_argument("--tensor-parallel", type=int, help="GPUs for vllm")
    options = parser.parse_args(argv)
    if bool(options.server) != bool(options.model):
        parser.error("--server and --model belong together")
    if options.server and options.engine != ENGINES[0]:
        parser.error("--server computes elsewhere: leave --engine out")
    if options.server and processes().num_processes > 1:
        parser.error("--server wants one process: leave the launcher out")
    if options.tensor_parallel and options.engine != "vllm":
        parser.error("--tensor-parallel belongs to --engine vllm")
    profile = get_profile(options.profile)
    problems = load_problems(
        profile.problems, "train", limit=options.limit or profile.traces
    )
    path = options.output or profile.traces_path
    known = path.read_bytes().count(b"\n") if path.exists() else 0
    started = time.perf_counter()
    if options.server:
        server = Server(
            options.server,
            options.model,
            concurrency=options.concurrency,
            timeout=options.timeout,
        )
        traces = server_traces(
            problems, server, path, profile=profile, seed=options.seed
        )
    elif options.engine == "vllm":
        traces = vllm_traces(
            problems,
            path,
            profile=profile,
            gpus=options.tensor_parallel or 1,
            seed=options.seed,
        )
    else:
        teacher = load_teacher(profile)
        traces = shared_traces(
            problems, teacher, path, profile=profile, seed=options.seed
        )
    if processes().is_main_process:
        for name, value in audit_traces(traces).items():
            print(f"{name:>22}  {value}")
    if (
        processes().num_processes == 1
    ):  # of several, each continues a file of its own
        print(pace(traces[known:], time.perf_counter() - started))
    return 0


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
