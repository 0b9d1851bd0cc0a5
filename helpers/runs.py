"""The folder of a training run: its settings, checkpoints and log.

run.json           the settings, compared before a run is continued
epoch_1 ... final  adapter and tokenizer, safetensors
log.json           written last: the losses of a finished run
resume/            what a killed run continues from
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from helpers import CourseError
from helpers.models import (
    Loaded,
    add_lora,
    load_student,
    peak_memory_mb,
    processes,
)
from helpers.profiles import Profile, write_atomic

SETTINGS = (
    "learning_rate",
    "batch_size",
    "gradient_accumulation",
    "max_length",
    "dtype",
    "load_in_4bit",
    "epochs",
)


class RunError(CourseError):
    """A training run that cannot start or continue as asked."""


@dataclass(frozen=True)
class TrainingRun:
    """What a finished run leaves behind.

    `log` holds {"step", "epoch", "loss", "learning_rate"} every few steps;
    `seconds` is training alone, `peak_memory_mb` the peak in MiB
    since `reset_peak` (of the process where it never ran).
    """

    folder: Path
    log: list[dict[str, float]]
    steps: int
    seconds: float
    peak_memory_mb: float

    @property
    def final_loss(self) -> float:
        return self.log[-1]["loss"]


def save_adapter(model: Any, tokenizer: Any, folder: Path) -> None:
    """Adapter and tokenizer, complete or not at all; the first process."""
    if not processes().is_main_process:
        return
    draft = folder.with_name(folder.name + ".part")
    shutil.rmtree(draft, ignore_errors=True)
    model.save_pretrained(str(draft), safe_serialization=True)
    tokenizer.save_pretrained(str(draft))
    shutil.rmtree(folder, ignore_errors=True)
    draft.rename(folder)


def run_settings(
    profile: Profile, traces: list[dict], **chosen: Any
) -> dict[str, Any]:
    """What must be equal for a killed run to be continued."""
    text = json.dumps([(t["question"], t["qwen3_answer"]) for t in traces])
    return {
        "student": Path(profile.student).name,
        **{name: getattr(profile, name) for name in SETTINGS},
        "traces": len(traces),
        "traces_sha256": hashlib.sha256(text.encode()).hexdigest()[:12],
        **chosen,
    }


def run_folder(profile: Profile, run: str) -> Path:
    """Where a run lives; raises RunError for a name that leads elsewhere."""
    folder = profile.run_folder / run
    if profile.run_folder.resolve() not in folder.resolve().parents:
        raise RunError(
            f"the run name {run!r} must be a plain name, for instance sft"
        )
    return folder


def open_run(
    folder: Path, settings: dict[str, Any], overwrite: bool
) -> Path | None:
    """The checkpoint to resume from, if any; an old run to overwrite goes.

    Raises RunError when the folder holds a run with other settings, and
    under FSDP. Of several processes the first one alone deletes.
    """
    if os.environ.get("ACCELERATE_USE_FSDP", "").lower() == "true":
        raise RunError(
            "under FSDP each process would hold a piece of the adapter, and "
            "the first one alone saves. Use data/accelerate/ddp.yaml: a "
            "student in 4 bits fits on each GPU."
        )
    if processes().is_main_process:
        if overwrite:
            shutil.rmtree(folder, ignore_errors=True)
        compare_settings(folder, settings)
        last_checkpoint(folder / "resume")
    processes().wait_for_everyone()
    return last_checkpoint(folder / "resume")


def compare_settings(folder: Path, settings: dict[str, Any]) -> None:
    """Refuse to go on with a run that was started with other settings."""
    if not (folder / "run.json").exists():
        return
    before = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    changed = {
        key: (before.get(key), value)
        for key, value in json.loads(json.dumps(settings)).items()
        if before.get(key) != value
    }
    if changed:
        raise RunError(
            f"{folder.name} holds a run with other settings (there, here): "
            f"{changed}. Name another run, or overwrite=True."
        )


def last_checkpoint(folder: Path) -> Path | None:
    """The newest complete checkpoint; removes those that a kill cut short.

    The Trainer writes trainer_state.json last, so without it the rest may be
    missing or half written.
    """
    complete: dict[int, Path] = {}
    for checkpoint in folder.glob("checkpoint-*"):
        try:
            state = (checkpoint / "trainer_state.json").read_text("utf-8")
            complete[json.loads(state)["global_step"]] = checkpoint
        except (OSError, ValueError):
            shutil.rmtree(checkpoint)
    return complete[max(complete)] if complete else None


def read_run(folder: Path) -> TrainingRun:
    """A finished run, from its log.json."""
    try:
        record = json.loads((folder / "log.json").read_text("utf-8"))
    except FileNotFoundError as error:
        raise RunError(
            f"{folder.name}: no finished run there. Run notebook 03, or "
            "`python3 -m helpers sft`."
        ) from error
    return TrainingRun(folder=folder, **record)


def run_training(
    build: Callable[[Loaded, Path], Any],
    folder: Path,
    settings: dict[str, Any],
    *,
    profile: Profile,
    overwrite: bool,
    student: Loaded | None,
) -> TrainingRun:
    """Start a run, continue it, or read it back.

    build: makes the trainer of a student, saving to the run's folder.
    """
    rank = adapter_rank(student.model) if student else profile.rank
    settings = settings | {"rank": rank}
    resume = open_run(folder, settings, overwrite)
    if (folder / "log.json").exists():
        return read_run(folder)
    if student is None:
        seed = settings["seed"]
        student = add_lora(load_student(profile), rank=rank, seed=seed)
    trainer = build(student, folder)
    if processes().is_main_process:
        record = settings | {"library_changed": trainer.library_changed}
        text = json.dumps(record, indent=1, default=str)
        write_atomic(folder / "run.json", text)
    started = time.perf_counter()
    trainer.train(resume_from_checkpoint=str(resume) if resume else None)
    return finish_run(trainer, student, folder, time.perf_counter() - started)


def adapter_rank(model: Any) -> int | None:
    """The rank of the model's adapters; None where all of it is trained."""
    adapters = getattr(model, "peft_config", None)
    return adapters[model.active_adapter].r if adapters else None


def finish_run(
    trainer: Any, student: Loaded, folder: Path, seconds: float
) -> TrainingRun:
    """Save `final` and the log, then drop what was only for resuming."""
    save_adapter(trainer.model, student.tokenizer, folder / "final")
    log = [
        {key: float(entry[key]) for key in ("step", "epoch", "loss")}
        | {"learning_rate": float(entry["learning_rate"])}
        for entry in trainer.state.log_history
        if "loss" in entry
    ]
    record = {
        "log": log,
        "steps": trainer.state.global_step,
        "seconds": round(seconds, 1),
        "peak_memory_mb": round(peak_memory_mb(), 1),
    }
    processes().wait_for_everyone()  # nobody needs the checkpoints any more
    if processes().is_main_process:
        write_atomic(folder / "log.json", json.dumps(record, indent=1))
        shutil.rmtree(folder / "resume", ignore_errors=True)
    processes().wait_for_everyone()
    return read_run(folder)
