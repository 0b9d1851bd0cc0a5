"""The folder of a training run: settings, checkpoints, log.

A run lives in data/runs/<profile>/<run>/: `epoch_1` ... `epoch_N` and `final`
hold the adapter and the tokenizer (safetensors only), `log.json` the loss
curve, `run.json` the settings, and `resume/`, deleted at the end, what a
killed run needs to continue.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from helpers import parallel
from helpers.files import write_atomic
from helpers.profiles import Profile


class RunError(ValueError):
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
    if not parallel.first():
        return
    draft = folder.with_name(folder.name + ".part")
    shutil.rmtree(draft, ignore_errors=True)
    model.save_pretrained(str(draft), safe_serialization=True)
    tokenizer.save_pretrained(str(draft))
    shutil.rmtree(folder, ignore_errors=True)
    draft.rename(folder)


SETTINGS = (
    "learning_rate",
    "batch_size",
    "gradient_accumulation",
    "max_length",
    "dtype",
    "load_in_4bit",
)


def run_settings(
    profile: Profile, traces: list[dict], **chosen: Any
) -> dict[str, Any]:
    """What must be equal for a killed run to be continued."""
    fields = asdict(profile)
    text = json.dumps([(t["question"], t["qwen3_answer"]) for t in traces])
    return {
        "student": Path(profile.student).name,
        **{name: fields[name] for name in SETTINGS},
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
    """Prepare the run's folder; the checkpoint to resume from, if any.

    Raises RunError when the folder holds a run with other settings, and
    under FSDP. Of several processes the first one alone deletes and writes.
    """
    if parallel.sharded():
        raise RunError(
            "under FSDP each process would hold a piece of the adapter, and "
            "the first one alone saves. Use data/accelerate/ddp.yaml: a "
            "student in 4 bits fits on each GPU."
        )
    if parallel.first():
        prepare_run(folder, settings, overwrite)
    parallel.wait()
    return last_checkpoint(folder / "resume")


def prepare_run(
    folder: Path, settings: dict[str, Any], overwrite: bool
) -> None:
    """The folder as `open_run` promises it, half checkpoints removed."""
    if overwrite:
        shutil.rmtree(folder, ignore_errors=True)
    stamp = folder / "run.json"
    settings = json.loads(json.dumps(settings))  # as it will be read again
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
    last_checkpoint(folder / "resume")


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
