"""`python3 -m helpers sft`."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from helpers.cli.commands import command_parser
from helpers.models import processes
from helpers.profiles import get_profile
from helpers.sft import train_student
from helpers.traces import filter_traces, load_traces


def count(text: str) -> int:
    """The type of an option that counts something."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a whole number of 1 or more"
        )
    return int(text)


def main(argv: list[str]) -> int:
    """`python3 -m helpers sft`."""
    parser = command_parser("sft", "Train the student on the traces.")
    parser.add_argument(
        "--run",
        "--name",  # torchrun takes --run for an option of its own
        default="sft",
        help="name of the run",
    )
    parser.add_argument("--rank", type=count)
    parser.add_argument("--epochs", type=count)
    parser.add_argument("--traces", type=Path, help="a trace file")
    parser.add_argument("--limit", type=count, help="number of traces")
    parser.add_argument("--overwrite", action="store_true")
    options = parser.parse_args(argv)
    profile = get_profile(options.profile)
    if options.rank is not None:
        profile = replace(profile, rank=options.rank)
    traces = load_traces(options.traces or profile.traces_path)
    sound, reasons = filter_traces(traces)
    print(f"{len(sound)} traces kept, dropped: {dict(reasons)}")
    done = train_student(
        sound[: options.limit],
        profile=profile,
        run=options.run,
        epochs=options.epochs,
        seed=options.seed,
        overwrite=options.overwrite,
    )
    if processes().is_main_process:
        print(
            f"{done.steps} steps in {done.seconds:.0f} s, final loss "
            f"{done.final_loss:.4f}, peak {done.peak_memory_mb:.0f} MiB"
        )
    return 0
