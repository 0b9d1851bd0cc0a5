"""Peak memory of whole runs at real shapes, beside what the planner expects.

Models of the exact shapes of data/configs with random weights: memory does
not ask what a weight is worth, so nothing is downloaded. Every point runs in
a process of its own, with the loaders and trainers of the course. The figure
is the peak above the imported libraries: of the process on a CPU (Linux), of
torch.cuda.max_memory_allocated on a GPU.
"""

from __future__ import annotations

import gc
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

from helpers.cli.environment import REPOSITORY
from helpers.rebuild.memory_points import MIB, POINTS, Measured, Point

TOKENIZERS = {"gemma3_text": "mini-gemma3"}  # any ids will do: the ids are 5
# Freed memory goes back at once, so that the peak is what was in use.
ALLOCATOR = {
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_MMAP_THRESHOLD_": "65536",
    "MALLOC_TRIM_THRESHOLD_": "65536",
}


# --- the child process ------------------------------------------------------


def measure(point: Point) -> dict[str, Any]:
    """Load, run, and report the peak in bytes; in a process of its own."""
    import torch

    from helpers.models import (
        load_student,
        peak_memory_mb,
        reset_peak,
        unsloth_backend,
    )
    from helpers.profiles import PROFILES

    unsloth_backend()
    import trl  # noqa: F401  what is imported must not count

    with tempfile.TemporaryDirectory() as name:
        folder = random_model(point.model, Path(name) / "student")
        profile = replace(
            PROFILES["laptop"],
            name="mini",  # nothing of this run is kept
            student=str(folder),
            load_in_4bit=point.bits == 4,
            dtype="bfloat16",
            batch_size=point.batch,
            gradient_accumulation=1 if point.rank else 2,
            gradient_checkpointing=point.checkpointing,
            max_length=point.length,
        )
        start = in_use()
        loaded = load_student(profile)
        own(loaded.model)
        run = prepare(point, loaded, profile, Path(name))
        gc.collect()
        if not reset_peak():
            raise OSError("/proc/self/clear_refs cannot be written here")
        run()
        peak = round(peak_memory_mb() * MIB) - start
    device = "cpu"
    if torch.cuda.is_available():
        device = torch.cuda.get_device_name()
    return {"device": device, "peak": peak, "backend": loaded.backend}


def prepare(point: Point, loaded: Any, profile: Any, folder: Path) -> Any:
    """What is to be measured, as a function without arguments."""
    from helpers.distill import Objective, PairCollator
    from helpers.models import add_lora, load_teacher
    from helpers.sft import build_trainer
    from helpers.trainer import DistillTrainer

    if point.method == "generate":
        return partial(ask, point, loaded)
    if point.rank:
        loaded = add_lora(loaded, rank=point.rank)
    else:
        loaded.model.requires_grad_(True)
    make = None
    if point.teacher:
        teacher = random_model(point.teacher, folder / "teacher")
        teacher = load_teacher(profile, str(teacher))
        own(teacher.model)
        chunk = point.chunk if point.method == "logit_chunked" else None
        make = partial(
            DistillTrainer,
            objective=Objective(chunk=chunk),
            teacher=teacher.model,
            data_collator=PairCollator(loaded.tokenizer.pad_token_id),
        )
    return build_trainer(
        loaded,
        rows(point, 2 * profile.gradient_accumulation),
        None,
        profile=profile,
        epochs=1,
        seed=7,
        progress=False,
        make=make,
    ).train


def rows(point: Point, steps: int) -> Any:
    """Rows of one length, every token but the first trained on."""
    from datasets import Dataset

    row = {
        "input_ids": [5] * point.length,
        "labels": [-100] + [5] * (point.length - 1),
    }
    if point.teacher:
        row |= {"soft_start": 1}
    count = point.batch * steps
    return Dataset.from_list([{**row, "row": i} for i in range(count)])


def ask(point: Point, loaded: Any) -> None:
    """A long prompt and a few tokens: what counts is the cache at the end."""
    import torch

    new = point.length - point.prompt
    prompt = torch.full(
        (point.batch, point.prompt), 5, device=loaded.model.device
    )
    with torch.no_grad():
        loaded.model.generate(
            input_ids=prompt,
            attention_mask=torch.ones_like(prompt),
            min_new_tokens=new,
            max_new_tokens=new,
            do_sample=False,
        )


def random_model(name: str, folder: Path) -> Path:
    """A model of that shape with random weights, as an ordinary folder."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    from helpers.profiles import MODELS
    from helpers.scale.shapes import CONFIGS

    content = json.loads((CONFIGS / f"{name}.json").read_text("utf-8"))
    config = AutoConfig.for_model(**content)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    model.save_pretrained(folder)
    source = MODELS / TOKENIZERS.get(config.model_type, "mini-qwen3-small")
    for file in (*source.glob("*token*"), source / "chat_template.jinja"):
        shutil.copy(file, folder)
    del model
    gc.collect()
    return folder


def own(model: Any) -> None:
    """Copy what is still mapped from a file: mapped pages count at random."""
    for parameter in model.parameters():
        if type(parameter).__name__ != "Params4bit":
            parameter.data = parameter.data.clone()
    gc.collect()


def in_use() -> int:
    """Bytes in use now, of the GPU where there is one."""
    import psutil
    import torch

    from helpers.models import reset_peak

    if torch.cuda.is_available():
        return torch.cuda.memory_allocated()
    gc.collect()
    reset_peak()  # gives freed memory back
    return psutil.Process().memory_info().rss


# --- all points -------------------------------------------------------------


def measure_all(points: tuple[Point, ...] = POINTS) -> Iterator[Measured]:
    """Measure each point, and say how far off the planner was.

    Raises OSError where memory cannot be measured, RuntimeError with the
    end of its log for a point that failed.
    """
    if platform.system() != "Linux":
        raise OSError("memory is measured on Linux only (it has VmHWM)")
    for point in points:
        command = [sys.executable, "-m", "helpers.rebuild.bench_memory"]
        done = subprocess.run(
            [*command, json.dumps(asdict(point))],
            cwd=REPOSITORY,
            env=os.environ | ALLOCATOR,
            capture_output=True,
            text=True,
        )
        if done.returncode:
            raise RuntimeError(f"{point} failed:\n{done.stderr[-2000:]}")
        found = json.loads(done.stdout.splitlines()[-1])
        made = Measured(point, found["peak"], found["device"])
        text = f"{point}: {made.peak / MIB:.0f} MiB, plan {made.error:+.1%}"
        print(text, file=sys.stderr, flush=True)
        yield made


if __name__ == "__main__":
    print(json.dumps(measure(Point(**json.loads(sys.argv[1])))))
