"""`python3 -m helpers sft`."""

from __future__ import annotations

from pathlib import Path

from helpers.cli.commands import command_parser
from helpers.models import processes
from helpers.profiles import get_profile
from helpers.sft import train_student


def main(argv: list[str]) -> int:
    """`python3 -m helpers sft`."""
    from helpers.traces import filter_traces, load_traces

    parser = command_parser("sft", __doc__)
    parser.add_argument(
        "--run",
        "--name",  # torchrun takes --run for an option of its own
        default="sft",
        help="name of the run",
    )
    parser.add_argument("--rank", type=int)
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--traces", type=Path, help="a trace file")
    parser.add_argument("--limit", type=int, help="number of traces")
    parser.add_argument("--overwrite", action="store_true")
    options = parser.parse_args(argv)
    profile = get_profile(options.profile)
    traces = load_traces(options.traces or profile.traces_path)
    kept, reasons = filter_traces(traces)
    print(f"{len(kept)} traces kept, dropped: {dict(reasons)}")
    done = train_student(
        kept[: options.limit],
        profile=profile,
        run=options.run,
        rank=options.rank,
        epochs=options.epochs,
        seed=options.seed,
        overwrite=options.overwrite,
    )
    if not processes().is_main_process:
        return 0
    print(
        f"{done.steps} steps in {done.seconds:.0f} s, final loss "
        f"{done.final_loss:.4f}, peak {done.peak_memory_mb:.0f} MiB"
    )
    return 0
