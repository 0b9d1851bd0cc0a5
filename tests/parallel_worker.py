"""What two processes of test_parallel.py run; started by torchrun."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import tiny

from helpers.distill import Lesson, Objective
from helpers.features import FeatureTerm
from helpers.models import processes
from helpers.scale.shards import shared_traces
from helpers.sft import train_student

TRACES, EPOCHS = 16, 2


def main(job: str, place: str, batch: str) -> None:
    folder = Path(place)
    sizes = {"batch_size": int(batch), "epochs": EPOCHS}
    # The models' folders first: once the processes know of each other, the
    # first one alone writes.
    profile, pair = tiny.profile(folder, **sizes), tiny.pair(folder, **sizes)
    traces, teacher = tiny.traces(TRACES), tiny.teacher()
    if job == "traces":
        path = folder / "traces.jsonl"
        asked = replace(profile, generation_batch=2)
        rows = shared_traces(tiny.problems(9), teacher, path, profile=asked)
        report = [row["id"] for row in rows]
    else:
        lesson = traces
        if job != "sft":
            term = FeatureTerm("even", 1.0, "cosine")
            term = term if job == "features" else None
            lesson = Lesson(traces, teacher, Objective(features=term))
            profile = pair
        run = train_student(lesson, profile=profile, run=job, progress=False)
        report = [entry["loss"] for entry in run.log]
    if processes().is_main_process:
        (folder / f"{job}.json").write_text(json.dumps(report))


if __name__ == "__main__":
    main(*sys.argv[1:])
