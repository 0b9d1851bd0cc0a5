"""Tokens a second of one process and of two, for `helpers bench`.

The traces and the SFT of the mini pair, started by torchrun as a learner
would start them. One process gets one core, then both; two processes get a
core each. The arms alternate and the fastest round counts. On the CPU on
every machine: models as small as these say nothing about GPUs.
"""

import json
import os
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

from helpers.files.disk import write_atomic
from helpers.models import add_lora, load_student, load_teacher, processes
from helpers.problems import load_problems
from helpers.profiles import DATA, get_profile, set_seed
from helpers.rebuild.children import run_child, take_turns
from helpers.results import package_versions
from helpers.scale.shards import shared_traces
from helpers.sft import TextLesson
from helpers.traces import filter_traces, load_traces
from helpers.widgets.training import train_timed

RESULT = DATA / "results" / "processes" / "cpu.json"
COMMAND = "python3 -m helpers bench --only processes"
MODULE = "helpers.rebuild.bench_processes"
# name: processes, cores each
ARMS = {"core": (1, 1), "one": (1, 2), "two": (2, 1)}
# name: problems, and rows a process asks at once; rows, and rows of a step
JOBS = {"traces": (512, 64), "sft_16": (768, 16), "sft_32": (768, 32)}
WARM_UP = 4  # steps that do not count


def traces_speed(folder: Path, size: int, batch: int) -> float:
    """Tokens a second of the teacher, from loaded to merged."""
    profile = replace(get_profile("mini", {}), generation_batch=batch)
    problems = load_problems(profile.problems, "train", limit=size)
    teacher = load_teacher(profile)
    processes().wait_for_everyone()
    started = time.perf_counter()
    rows = shared_traces(
        problems, teacher, folder / "traces.jsonl", profile=profile
    )
    seconds = time.perf_counter() - started
    return sum(rows["completion_tokens"]) / seconds


def sft_speed(size: int, batch: int) -> float:
    """Tokens a second of a median step, the global batch always the same."""
    set_seed(7)
    profile = get_profile("mini", {})
    share = batch // processes().num_processes
    profile = replace(profile, batch_size=share, epochs=1)
    sound, _ = filter_traces(load_traces(profile.traces_path))
    student = add_lora(load_student(profile), rank=profile.rank)
    lesson = TextLesson(sound[:size])
    trainer = lesson.trainer(student, profile=profile, progress=False)
    steps = train_timed(trainer)
    rows = trainer.train_dataset
    tokens = sum(map(len, rows["input_ids"])) / len(rows) * batch
    return tokens / median(steps[WARM_UP:])


def run_arm(job: str, arm: str, *, size: int | None = None) -> float:
    """Tokens a second of an arm, all of its processes together."""
    count, cores = ARMS[arm]
    launch = f"torch.distributed.run --standalone --nproc_per_node {count} -m"
    with tempfile.TemporaryDirectory() as folder:
        return run_child(
            *launch.split(), MODULE, job, folder, str(size or JOBS[job][0]),
            environment={
                "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": str(cores)
            },
        )  # fmt: skip


def measure_all() -> dict[str, Any]:
    """The fastest of the rounds for each job and arm, kept in `RESULT`."""
    turns = take_turns(
        *ARMS,
        measure=lambda arm: {job: run_arm(job, arm) for job in JOBS},
    )
    content = {
        "command": COMMAND,
        "cores": os.cpu_count(),
        "versions": package_versions(),
        "tokens_per_second": {
            job: {arm: round(max(turns[arm][job])) for arm in ARMS}
            for job in JOBS
        },
    }
    RESULT.parent.mkdir(exist_ok=True)
    write_atomic(RESULT, json.dumps(content, indent=1) + "\n")
    return content


def ratios(content: dict[str, Any]) -> dict[str, float]:
    """Two processes over one with one core, and over one with both."""
    return {
        f"{job}_two_over_{arm}": speed["two"] / speed[arm]
        for job, speed in content["tokens_per_second"].items()
        for arm in ("core", "one")
    }


if __name__ == "__main__":  # what torchrun starts
    job, folder, size = sys.argv[1:]
    batch = JOBS[job][1]
    if job == "traces":
        speed = traces_speed(Path(folder), int(size), batch)
    else:
        speed = sft_speed(int(size), batch)
    if processes().is_main_process:
        print(json.dumps(speed))
