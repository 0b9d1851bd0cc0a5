"""The folder of a training run: settings, checkpoints, log.

A run lives in data/runs/<profile>/<run>/: `epoch_1` ... `epoch_N` and `final`
hold the adapter and the tokenizer (safetensors only), `log.json` the loss
curve, `run.json` the settings, and `resume/`, deleted at the end, what a
killed run needs to continue.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from helpers.files import write_atomic
from helpers.profiles import Profile


class RunError(ValueError):
    """A training run that cannot start or continue as asked."""


@dataclass(frozen=True)
class TrainingRun:
    """What a finished run leaves behind.

    `log` holds {"step", "epoch", "loss", "learning_rate"} every few steps;
    `seconds` is training alone, `peak_memory_mb` the process's peak.
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
    """Adapter and tokenizer, complete or not at all."""
    draft = folder.with_name(folder.name + ".part")
    shutil.rmtree(draft, ignore_errors=True)
    model.save_pretrained(str(draft), safe_serialization=True)
    tokenizer.save_pretrained(str(draft))
    shutil.rmtree(folder, ignore_errors=True)
    draft.rename(folder)


def run_settings(profile: Profile, **chosen: Any) -> dict[str, Any]:
    """What must be equal for a killed run to be continued."""
    names = ("student", "learning_rate", "batch_size", "max_length", "dtype")
    fields = asdict(profile)
    settings = {name: fields[name] for name in names}
    settings["student"] = Path(profile.student).name
    settings["gradient_accumulation"] = profile.gradient_accumulation
    return {**settings, **chosen}


def open_run(folder: Path, settings: dict[str, Any], overwrite: bool) -> bool:
    """Prepare the run's folder; True when there is a state to resume.

    Raises RunError when the folder holds a run with other settings.
    """
    if overwrite:
        shutil.rmtree(folder, ignore_errors=True)
    stamp = folder / "run.json"
    if stamp.exists():
        found = json.loads(stamp.read_text(encoding="utf-8"))
        changed = {
            key: (found.get(key), value)
            for key, value in settings.items()
            if found.get(key) != value
        }
        if changed:
            raise RunError(
                f"{folder.name} holds a run with other settings (there, "
                f"here): {changed}. Name another run, or overwrite=True."
            )
    write_atomic(stamp, json.dumps(settings, indent=1))
    return any((folder / "resume").glob("checkpoint-*"))


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
