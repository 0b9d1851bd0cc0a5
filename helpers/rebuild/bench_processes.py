"""Tokens a second of one process and of two, for `helpers bench`.

The traces and the SFT of the mini pair, started by torchrun as a learner
would start them. One process gets one core, then both; two processes get a
core each. The arms alternate and the fastest round counts. On the CPU on
every machine: models as small as these say nothing about GPUs.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

from helpers.cli.environment import REPOSITORY
from helpers.models import processes
from helpers.profiles import DATA, write_atomic
from helpers.results import package_versions

RESULT = DATA / "results" / "processes" / "cpu.json"
COMMAND = "python3 -m helpers bench --only processes"
NO_GPU = {"CUDA_VISIBLE_DEVICES": ""}
MODULE = "helpers.rebuild.bench_processes"
# name: processes, cores each
ARMS = {"core": (1, 1), "one": (1, 2), "two": (2, 1)}
# name: problems, and rows a process asks at once; rows, and rows of a step
JOBS = {"traces": (512, 64), "sft_16": (768, 16), "sft_32": (768, 32)}
WARM_UP, ROUNDS = 4, 3  # steps that do not count, rounds of every arm


# --- a process of an arm ----------------------------------------------------


def traces_speed(folder: Path, size: int, batch: int) -> float:
    """Tokens a second of the teacher, from loaded to merged."""
    from dataclasses import replace

    from helpers.models import load_teacher
    from helpers.problems import load_problems
    from helpers.profiles import get_profile
    from helpers.scale.shards import shared_traces

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
    from dataclasses import replace

    from helpers.models import add_lora, load_student
    from helpers.profiles import get_profile, set_seed
    from helpers.sft import build_trainer, encode_traces
    from helpers.traces import filter_traces, load_traces
    from helpers.widgets.training import train_timed

    set_seed(7)
    profile = get_profile("mini", {})
    kept, _ = filter_traces(load_traces(profile.traces_path))
    student = add_lora(load_student(profile), rank=profile.rank)
    rows, _ = encode_traces(
        list(kept)[:size], student.tokenizer, max_length=profile.max_length
    )
    trainer = build_trainer(
        student,
        rows,
        None,
        profile=replace(
            profile, batch_size=batch // processes().num_processes
        ),
        epochs=1,
        seed=7,
        progress=False,
    )
    steps = train_timed(trainer)
    tokens = sum(len(row["input_ids"]) for row in rows) / len(rows) * batch
    return tokens / median(steps[WARM_UP:])


def main(job: str, folder: Path, size: int) -> None:
    """What torchrun starts; the first process leaves the figure."""

    batch = JOBS[job][1]
    if job == "traces":
        speed = traces_speed(folder, size, batch)
    else:
        speed = sft_speed(size, batch)
    if processes().is_main_process:
        (folder / f"{job}.json").write_text(json.dumps(speed))


# --- all arms ---------------------------------------------------------------


def run_arm(job: str, arm: str, *, size: int | None = None) -> float:
    """Tokens a second of an arm; RuntimeError with the end of its log."""
    processes, cores = ARMS[arm]
    rows = str(size or JOBS[job][0])
    with tempfile.TemporaryDirectory() as name:
        launch = ["torch.distributed.run", "--standalone"]
        launch += ["--nproc_per_node", str(processes)]
        done = subprocess.run(
            [sys.executable, "-m", *launch, "-m", MODULE, job, name, rows],
            cwd=REPOSITORY,
            env=os.environ | NO_GPU | {"OMP_NUM_THREADS": str(cores)},
            capture_output=True,
            text=True,
        )
        if done.returncode:
            raise RuntimeError(f"{job}, {arm}:\n{done.stderr[-2000:]}")
        return json.loads((Path(name) / f"{job}.json").read_text())


def measure_all() -> dict[str, Any]:
    """The fastest of ROUNDS for each job and arm, kept in `RESULT`."""
    runs = {job: {arm: [] for arm in ARMS} for job in JOBS}
    for _ in range(ROUNDS):
        for job, arms in runs.items():
            for arm, found in arms.items():
                found.append(run_arm(job, arm))
    content = {
        "command": COMMAND,
        "cores": os.cpu_count(),
        "versions": package_versions(),
        "tokens_per_second": {
            job: {arm: round(max(found)) for arm, found in arms.items()}
            for job, arms in runs.items()
        },
    }
    RESULT.parent.mkdir(exist_ok=True)
    write_atomic(RESULT, json.dumps(content, indent=1) + "\n")
    return content


def ratios(content: dict[str, Any]) -> dict[str, float]:
    """Two processes over one with one core, and over one with both."""
    found = {}
    for job, speed in content["tokens_per_second"].items():
        found[f"{job}_two_over_core"] = speed["two"] / speed["core"]
        found[f"{job}_two_over_one"] = speed["two"] / speed["one"]
    return found


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))
