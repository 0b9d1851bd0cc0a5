"""What two processes of test_parallel.py run; started by torchrun."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import tiny

from helpers.distill import Lesson, Objective, distill_student
from helpers.features import FeatureTerm
from helpers.models import processes
from helpers.scale.shards import shared_traces
from helpers.sft import train_student

TRACES, EPOCHS = 16, 2


def main(job: str, place: str, batch: str) -> None:
    folder = Path(place)
    profile = tiny.profile(folder, batch_size=int(batch))
    if job == "traces":
        rows = shared_traces(
            tiny.problems(9),
            tiny.teacher(),
            folder / "traces.jsonl",
            profile=replace(profile, generation_batch=2),
        )
        found = [row["id"] for row in rows]
    elif job == "sft":
        found = losses(
            train_student(
                tiny.traces(TRACES),
                profile=profile,
                epochs=EPOCHS,
                progress=False,
            )
        )
    else:
        pair = tiny.pair(folder, batch_size=int(batch))
        term = FeatureTerm("even", 1.0, "cosine")
        objective = Objective(features=term if job == "features" else None)
        found = losses(
            distill_student(
                Lesson(tiny.traces(TRACES), tiny.teacher(), objective),
                profile=pair,
                epochs=EPOCHS,
                progress=False,
            )
        )
    if processes().is_main_process:
        (folder / f"{job}.json").write_text(json.dumps(found))


def losses(done) -> list[float]:
    return [entry["loss"] for entry in done.log]


if __name__ == "__main__":
    main(*sys.argv[1:])
