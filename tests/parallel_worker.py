"""What two processes of test_parallel.py run; started by torchrun."""

import json
import sys
from pathlib import Path

import tiny

from helpers.distill import Lesson, Objective
from helpers.features import FeatureTerm
from helpers.models import processes
from helpers.scale.shards import shared_traces
from helpers.sft import train_student

TERM = FeatureTerm("even", 1.0, "cosine")


def main(folder: Path, batch: int) -> None:
    sizes = {"batch_size": batch, "epochs": 2, "generation_batch": 2}
    # The models' folders first: once the processes know of each other, the
    # first one alone writes.
    profile, pair = tiny.profile(folder, **sizes), tiny.pair(folder, **sizes)
    traces, teacher = tiny.traces(16), tiny.teacher()
    report, path = {}, folder / "traces.jsonl"
    for name in ("traces", "again"):
        rows = shared_traces(tiny.problems(9), teacher, path, profile=profile)
        report[name] = [row["id"] for row in rows]
    for name, size, lesson in (
        ("sft", profile, traces),
        ("logit", pair, Lesson(traces, teacher, Objective())),
        ("features", pair, Lesson(traces, teacher, Objective(features=TERM))),
    ):
        run = train_student(lesson, profile=size, run=name, progress=False)
        report[name] = [entry["loss"] for entry in run.log]
    if processes().is_main_process:
        (folder / "report.json").write_text(json.dumps(report))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
