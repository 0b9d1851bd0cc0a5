"""What a training run leaves on disk, and how it is opened again.

run.json           the settings, compared before a run is continued
epoch_1 ... final  adapter and tokenizer, safetensors
log.json           written last: the losses of a finished run
resume/            what a killed run continues from
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import torch
from safetensors import SafetensorError, safe_open

from helpers import CourseError, first_line
from helpers.files.disk import read_json, swap, write_atomic
from helpers.models import peak_memory_mb, processes
from helpers.profiles import Profile

PARTS = ("run.json", "log.json", "final", "epoch_*", "resume")
# Other folders beside the runs: no run may have their names.
TAKEN = ("cache", "compare", "evaluation", "results", "traces", "trl")


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


def run_folder(profile: Profile, run: str) -> Path:
    """Where a run lives; raises RunError for a name that is not its own."""
    if not re.fullmatch(r"\w[\w.-]*", run) or run in TAKEN:
        raise RunError(
            f"the run name {run!r} must be a plain name, for instance sft, "
            f"and none of {', '.join(TAKEN)}."
        )
    return profile.run_folder / run


def open_run(
    folder: Path, settings: dict[str, Any], overwrite: bool
) -> Path | None:
    """The checkpoint to resume from, if any; an old run to overwrite goes.

    Nothing else in the folder is touched. Raises RunError when it holds a
    run with other settings, and under FSDP. Of several processes the first
    one alone deletes.
    """
    if os.environ.get("ACCELERATE_USE_FSDP", "").lower() == "true":
        raise RunError(
            "under FSDP each process would hold a piece of the adapter, and "
            "the first one alone saves. Use data/accelerate/ddp.yaml: a "
            "student in 4 bits fits on each GPU."
        )
    if processes().is_main_process:
        for path in parts(folder) if overwrite else ():
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        compare_settings(folder, settings)
        last_checkpoint(folder / "resume")
    processes().wait_for_everyone()
    return last_checkpoint(folder / "resume")


def parts(folder: Path) -> list[Path]:
    """What a run wrote there."""
    return [path for name in PARTS for path in folder.glob(name)]


def compare_settings(folder: Path, settings: dict[str, Any]) -> None:
    """Refuse to go on with a run that was started with other settings."""
    before = read_json(folder / "run.json")
    if not before and parts(folder):
        raise RunError(
            f"{folder.name} holds a run without its run.json, so nobody knows "
            "its settings. Name another run, or overwrite=True."
        )
    if not before:
        return
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
    missing or half written. One whose parts have changed since goes too.
    """
    complete: dict[int, Path] = {}
    for checkpoint in folder.glob("checkpoint-*"):
        try:
            state = (checkpoint / "trainer_state.json").read_text("utf-8")
            for part in checkpoint.glob("*.safetensors"):
                safe_open(part, "pt")
            for part in checkpoint.glob("*.pt"):
                torch.load(part, map_location="cpu", weights_only=True)
                if ZipFile(part).testzip():
                    raise ValueError("its bytes have changed")
            complete[json.loads(state)["global_step"]] = checkpoint
        except Exception:  # torch and zipfile raise many kinds
            shutil.rmtree(checkpoint)
    return complete[max(complete)] if complete else None


@contextlib.contextmanager
def saving(folder: Path) -> Iterator[None]:
    """OSError with a cure for what safetensors and torch say of a disk."""
    try:
        yield
    except (SafetensorError, RuntimeError) as error:
        if not re.search("I/O error|inline_container", str(error)):
            raise
        raise OSError(
            f"cannot save {folder.name}: {first_line(error)}. Free some space "
            "and type the command again: it goes on"
        ) from error


def finish_run(trainer: Any, folder: Path, seconds: float) -> TrainingRun:
    """Save `final` and the log, then drop what was only for resuming.

    Raises RunError, and saves nothing, where a weight is no number.
    """
    for name, weight in trainer.model.named_parameters():
        if weight.requires_grad and not weight.isfinite().all():
            raise RunError(
                f"{name} has become NaN or infinite: lower "
                "DISTILL_LEARNING_RATE, and train again with overwrite=True."
            )
    save_adapter(trainer.model, trainer.processing_class, folder / "final")
    names = ("step", "epoch", "loss", "learning_rate")
    log = [
        {name: float(entry[name]) for name in names}
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


def finished(folder: Path) -> bool:
    """Whether all of a finished run is there."""
    return (folder / "log.json").exists() and (folder / "final").exists()


def read_run(folder: Path) -> TrainingRun:
    """A finished run, from its log.json."""
    record = read_json(folder / "log.json")
    if not record:
        raise RunError(
            f"{folder.name}: no finished run there. Run notebook 03, or "
            "`python3 -m helpers sft`."
        )
    return TrainingRun(folder=folder, **record)


def save_adapter(model: Any, tokenizer: Any, folder: Path) -> None:
    """Adapter and tokenizer, complete or not at all; the first process."""
    if not processes().is_main_process:
        return
    draft = folder.with_name(folder.name + ".part")
    shutil.rmtree(draft, ignore_errors=True)
    model.save_pretrained(str(draft), safe_serialization=True)
    tokenizer.save_pretrained(str(draft))
    shutil.rmtree(folder, ignore_errors=True)
    swap(draft, folder)
