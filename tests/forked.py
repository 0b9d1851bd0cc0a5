"""Work in processes of their own: to be killed, or without Unsloth.

A fork server imports the libraries once; each process is a fork of it.
"""

import json
import multiprocessing
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import torch

from helpers import logit_cache, models
from helpers.evaluate import Evaluation, evaluate
from helpers.problems import load_problems
from helpers.profiles import PROFILES, Profile
from helpers.sft import train_student
from helpers.traces import generate_traces


def start(work: Callable[..., None], *args: Any) -> Any:
    """`work` in a process of its own, as a multiprocessing.Process."""
    linux = sys.platform == "linux"  # a fork is quick, and safe there alone
    context = multiprocessing.get_context("forkserver" if linux else "spawn")
    context.set_forkserver_preload([__name__] if linux else [])
    process = context.Process(target=work, args=args, daemon=True)
    with mock.patch.dict(os.environ, PYTHONPATH=os.pathsep.join(sys.path)):
        process.start()
    return process


def launch(processes: int, *script: Any) -> None:
    """A script and its arguments in so many processes, by torchrun if many."""
    torchrun = "-m torch.distributed.run --standalone --nproc_per_node"
    launcher = [*torchrun.split(), str(processes)] if processes > 1 else []
    done = subprocess.run(
        [sys.executable, *launcher, *map(str, script)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]


def sample(folder: str, path: Path | None) -> Evaluation:
    """Twelve sampled answers of test_evaluate.py, two at a time."""
    torch.set_num_threads(1)
    profile = replace(PROFILES["mini"], teacher=folder, max_new_tokens=100)
    asked = load_problems("mini", "validation", limit=12)
    options = {"mode": "teacher", "sampling": profile.sampling(7)}
    options |= {"profile": profile, "batch_size": 2, "path": path}
    return evaluate(models.load_teacher(profile), asked, **options)


def write_traces(teacher: str, output: Path) -> None:
    """48 traces of up to 32 tokens, two at a time."""
    torch.set_num_threads(1)
    small = {"generation_batch": 2, "max_new_tokens": 32}
    profile = replace(PROFILES["mini"], teacher=teacher, **small)
    loaded = models.load_teacher(profile)
    asked = load_problems("mini", "validation", limit=48)
    model = loaded.model, loaded.tokenizer
    generate_traces(asked, *model, output, profile=profile, progress=False)


def write_one_shard(
    traces: list[dict], teacher: str, student: str, output: Path, options: dict
) -> None:
    """The first three rows of a cache; then it hangs over the next ones."""
    torch.set_num_threads(1)
    usual = logit_cache.ask_teacher

    def ask_once(*args: Any) -> Any:
        if list(output.glob("rows_*")):
            time.sleep(600)
        return usual(*args)

    logit_cache.SHARD_ROWS, logit_cache.ask_teacher = 3, ask_once
    loaded = models.load_teacher(PROFILES["mini"], teacher)
    tokenizer = models.load_teacher(PROFILES["mini"], student).tokenizer
    logit_cache.write_cache(
        traces, loaded, output, tokenizer=tokenizer, **options
    )


def train_by_fallback(profile: Profile, traces: list[dict]) -> None:
    """A student trained without Unsloth; what came of it, as a JSON file."""
    os.environ["DISTILL_NO_UNSLOTH"] = "1"
    student = models.load_student(profile)
    layers = models.quantized_layers(student.model)
    report = {"backend": student.backend, "layers": layers}
    options = {"profile": profile, "progress": False}
    student = models.add_lora(student, rank=4)
    run = train_student(traces, student=student, **options)
    report |= {"steps": run.steps, "loss": run.final_loss}
    report |= {"unsloth": "unsloth" in sys.modules}
    (run.folder / "report.json").write_text(json.dumps(report))


if __name__ == "__main__":
    sample(sys.argv[1], Path(sys.argv[2]))
