"""The folder of a training run: its settings, checkpoints and log.

run.json           the settings, compared before a run is continued
epoch_1 ... final  adapter and tokenizer, safetensors
log.json           written last: the losses of a finished run
resume/            what a killed run continues from
"""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from helpers import CourseError
from helpers.models import processes
from helpers.profiles import Profile


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
