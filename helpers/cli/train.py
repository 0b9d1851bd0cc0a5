"""`python3 -m helpers sft`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from helpers.cli.commands import command_parser, count, field
from helpers.models import processes
from helpers.profiles import get_profile
from helpers.sft import train_student
from helpers.traces import filter_traces, load_traces


def main(argv: list[str]) -> int:
    """Train the student on the sound ones of the traces."""
    parser = command_parser("sft", "Train the student on the traces.")
    # torchrun takes --run for an option of its own
    parser.add_argument("--run", "--name", default="sft", help="its name")
    parser.add_argument("--rank", type=field("rank"))
    parser.add_argument("--epochs", type=field("epochs"))
    parser.add_argument("--traces", type=Path, help="a trace file")
    parser.add_argument("--limit", type=count, help="of traces")
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
