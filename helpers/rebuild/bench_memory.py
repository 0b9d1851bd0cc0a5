"""Peak memory of whole runs at real shapes, beside what the planner expects.

Models of the exact shapes of data/configs with random weights: memory does
not ask what a weight is worth, so nothing is downloaded. Every point runs in
a process of its own, with the loaders and trainers of the course. The figure
is the peak above the imported libraries: of the process on a CPU (Linux), of
torch.cuda.max_memory_allocated on a GPU.
"""

import gc
import json
import platform
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import torch
from datasets import Dataset

from helpers.distill import Objective, PairCollator
from helpers.models import (
    Loaded,
    add_lora,
    load_student,
    load_teacher,
    peak_memory_mb,
    reset_peak,
)
from helpers.profiles import MODELS, PROFILES, Profile
from helpers.rebuild.children import run_child
from helpers.rebuild.memory_points import MIB, POINTS, Measured, Point
from helpers.scale.shapes import CONFIGS
from helpers.sft import TextLesson
from helpers.trainer import DistillTrainer

TOKENIZERS = {"gemma3_text": "mini-gemma3"}  # any ids will do: the ids are 5
# Freed memory goes back at once, so that the peak is what was in use.
ALLOCATOR = {
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_MMAP_THRESHOLD_": "65536",
    "MALLOC_TRIM_THRESHOLD_": "65536",
}


def measure(point: Point, folder: Path) -> dict[str, Any]:
    """Load, run, and report the peak in bytes; in a process of its own."""
    profile = replace(
        PROFILES["laptop"],
        name="mini",  # nothing of this run is kept
        student=random_model(point.model, folder / "student"),
        load_in_4bit=point.bits == 4,
        dtype="bfloat16",
        batch_size=point.batch,
        gradient_accumulation=1 if point.rank else 2,
        gradient_checkpointing=point.checkpointing,
        max_length=point.length,
        epochs=1,
    )
    start = in_use()
    loaded = load_student(profile)
    copy_mapped(loaded.model)
    run = prepare(point, loaded, profile, folder)
    gc.collect()
    if not reset_peak():
        raise OSError("/proc/self/clear_refs cannot be written here")
    run()
    peak = round(peak_memory_mb() * MIB) - start
    gpu = torch.cuda.is_available()
    device = torch.cuda.get_device_name() if gpu else "cpu"
    return {"device": device, "peak": peak}


def prepare(
    point: Point, loaded: Loaded, profile: Profile, folder: Path
) -> Callable[[], Any]:
    """What is to be measured, as a function without arguments."""
    if point.method == "generate":
        return partial(ask, point, loaded)
    if point.rank:
        loaded = add_lora(loaded, rank=point.rank)
    else:
        loaded.model.requires_grad_(True)
    # Rows of one length, every token but the first trained on.
    row = {
        "input_ids": [5] * point.length,
        "labels": [-100] + [5] * (point.length - 1),
    }
    if point.teacher:
        row["soft_start"] = 1
    count = point.batch * 2 * profile.gradient_accumulation
    rows = Dataset.from_list([{**row, "row": i} for i in range(count)])
    make = None
    if point.teacher:
        name = random_model(point.teacher, folder / "teacher")
        teacher = load_teacher(profile, name).model
        copy_mapped(teacher)
        chunk = point.chunk if point.method == "logit_chunked" else None
        make = partial(
            DistillTrainer,
            objective=Objective(chunk=chunk),
            teacher=teacher,
            data_collator=PairCollator(loaded.tokenizer.pad_token_id),
        )
    lesson = Given(rows, make)
    return lesson.trainer(loaded, profile=profile, progress=False).train


@dataclass(frozen=True)
class Given(TextLesson):
    """Rows that are encoded already, and what makes their trainer."""

    make: Callable[..., Any] | None

    def prepare(self, *_: Any) -> tuple[Any, Any]:
        return self.traces, self.make


def ask(point: Point, loaded: Loaded) -> None:
    """A long prompt and a few tokens: what counts is the cache at the end."""
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


def random_model(name: str, folder: Path) -> str:
    """A model of that shape with random weights, as an ordinary folder."""
    from transformers import AutoConfig, AutoModelForCausalLM

    content = json.loads((CONFIGS / f"{name}.json").read_text("utf-8"))
    config = AutoConfig.for_model(**content)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    model.save_pretrained(folder)
    source = MODELS / TOKENIZERS.get(config.model_type, "mini-qwen3-small")
    for file in (*source.glob("*token*"), source / "chat_template.jinja"):
        shutil.copy(file, folder)
    return str(folder)


def copy_mapped(model: Any) -> None:
    """Copy what is still mapped from a file: mapped pages count at random."""
    for parameter in model.parameters():
        if type(parameter).__name__ != "Params4bit":
            parameter.data = parameter.data.clone()
    gc.collect()


def in_use() -> int:
    """Bytes in use now, of the GPU where there is one."""
    gc.collect()
    if torch.cuda.is_available():
        return torch.cuda.memory_allocated()
    reset_peak()  # gives freed memory back
    return psutil.Process().memory_info().rss


def measure_all(points: tuple[Point, ...] = POINTS) -> Iterator[Measured]:
    """Measure each point, and say how far off the planner was.

    Raises OSError where memory cannot be measured, RuntimeError with the
    end of its log for a point that failed.
    """
    if platform.system() != "Linux":
        raise OSError("memory is measured on Linux only (it has VmHWM)")
    for point in points:
        figures = run_child(
            "helpers.rebuild.bench_memory",
            json.dumps(asdict(point)),
            environment=ALLOCATOR,
        )
        measured = Measured(point, **figures)
        error = f"{measured.peak / MIB:.0f} MiB, plan {measured.error:+.1%}"
        print(f"{point}: {error}", file=sys.stderr, flush=True)
        yield measured


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        point = Point(**json.loads(sys.argv[1]))
        print(json.dumps(measure(point, Path(name))))
