"""Response distillation: one trainer, one schedule, a checkpoint per epoch.

TRL trains; this module only decides what it is given. helpers.sft says what
a run leaves on disk.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from helpers import CourseError, chat
from helpers.models import (
    Loaded,
    add_lora,
    load_student,
    peak_memory_mb,
    processes,
    quiet,
)
from helpers.profiles import RUNS, Profile, write_atomic


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
    if os.environ.get("ACCELERATE_USE_FSDP", "").lower() == "true":
        raise RunError(
            "under FSDP each process would hold a piece of the adapter, and "
            "the first one alone saves. Use data/accelerate/ddp.yaml: a "
            "student in 4 bits fits on each GPU."
        )
    if processes().is_main_process:
        prepare_run(folder, settings, overwrite)
    processes().wait_for_everyone()
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


def encode_traces(
    traces: Iterable[dict], tokenizer: Any, *, max_length: int
) -> tuple[Any, int]:
    """Rows of `input_ids` and `labels`, and how many were too long.

    A row longer than `max_length` is dropped, never cut. Raises RunError
    when nothing is left, ChatError when no token or every token is trained.
    """
    from datasets import Dataset

    rows = []
    dropped = 0
    for trace in traces:
        messages = chat.student_messages(
            trace["question"], trace["qwen3_answer"]
        )
        row = chat.encode_example(messages, tokenizer, max_length=max_length)
        dropped += row is None
        if row is not None:
            rows.append(row)
    if not rows:
        raise RunError(
            f"no trace is left to train on ({dropped} were longer than "
            f"{max_length} tokens). Raise DISTILL_MAX_LENGTH or relax the "
            "filter."
        )
    chat.trained_share(rows)
    return Dataset.from_list(rows), dropped


def sft_config(
    profile: Profile,
    folder: Path | None,
    *,
    epochs: int,
    rows: int,
    seed: int,
) -> Any:
    """The one TRL configuration of the course."""
    from trl import SFTConfig

    per_step = profile.batch_size * profile.gradient_accumulation
    per_step *= processes().num_processes
    steps = max(1, -(-rows // per_step)) * epochs
    return SFTConfig(
        output_dir=str((folder or RUNS / "unsaved") / "resume"),
        num_train_epochs=epochs,
        per_device_train_batch_size=profile.batch_size,
        gradient_accumulation_steps=profile.gradient_accumulation,
        learning_rate=profile.learning_rate,
        lr_scheduler_type="cosine",
        warmup_steps=max(1, steps // 20),
        max_grad_norm=1.0,
        max_length=None,  # too long rows are gone: nothing may be cut
        packing=False,
        bf16=profile.dtype == "bfloat16",
        gradient_checkpointing=profile.gradient_checkpointing,
        gradient_checkpointing_kwargs={"use_reentrant": False},
        optim="adamw_torch_fused",
        save_strategy="no" if folder is None else "epoch",
        save_total_limit=1,
        logging_steps=max(1, steps // 40),
        logging_first_step=True,
        report_to="none",
        disable_tqdm=True,
        use_cpu=not torch.cuda.is_available(),
        ddp_find_unused_parameters=False,
        seed=seed,
        data_seed=seed,
    )


def make_callback(
    folder: Path | None, tokenizer: Any, *, progress: bool
) -> Any:
    """Keeps an adapter per epoch, and one tqdm bar for the whole run."""
    from tqdm.auto import tqdm
    from transformers import TrainerCallback

    class EpochKeeper(TrainerCallback):
        bar: Any = None

        def on_train_begin(self, args, state, control, **_):
            self.bar = tqdm(
                total=state.max_steps,
                initial=state.global_step,
                desc="training",
                disable=not progress or not processes().is_main_process,
            )

        def on_step_end(self, args, state, control, **_):
            self.bar.update(1)

        def on_log(self, args, state, control, logs=None, **_):
            if logs and "loss" in logs:
                self.bar.set_postfix(loss=f"{float(logs['loss']):.3f}")

        def on_epoch_end(self, args, state, control, model=None, **_):
            number = round(state.epoch)
            if folder is None:
                return
            save_adapter(model, tokenizer, folder / f"epoch_{number}")

        def on_train_end(self, args, state, control, **_):
            self.bar.close()

    return EpochKeeper()


def build_trainer(
    student: Loaded,
    rows: Any,
    folder: Path | None,
    *,
    profile: Profile,
    epochs: int,
    seed: int,
    progress: bool = True,
    make: Callable[..., Any] | None = None,
) -> Any:
    """TRL's SFTTrainer over the encoded rows; no folder, nothing saved.

    `make` builds a subclass of it instead (helpers.distill).

    TRL casts adapters to bfloat16 when the model is quantized, but resuming
    loads them as float32; keeping them in float32 from the start makes a
    resumed run equal to an uninterrupted one.
    """
    from transformers import PrinterCallback
    from transformers.trainer_utils import align_special_tokens
    from trl import SFTTrainer

    with quiet():
        trainer = (make or SFTTrainer)(
            model=student.model,
            args=sft_config(
                profile, folder, epochs=epochs, rows=len(rows), seed=seed
            ),
            train_dataset=rows,
            processing_class=student.tokenizer,
            callbacks=[
                make_callback(folder, student.tokenizer, progress=progress)
            ],
        )
        align_special_tokens(trainer.model, student.tokenizer)
    trainer.remove_callback(PrinterCallback)
    for parameter in trainer.model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    return trainer


def train_student(
    traces: Iterable[dict],
    *,
    profile: Profile,
    run: str = "sft",
    rank: int | None = None,
    epochs: int | None = None,
    seed: int = 7,
    overwrite: bool = False,
    progress: bool = True,
    student: Loaded | None = None,
) -> TrainingRun:
    """Train the profile's student on traces with QLoRA; returns the run.

    A killed run is continued when it is started again with the same
    settings; a finished one is read back, not trained twice. With
    `overwrite` an older run of that name is deleted first. `student` is a
    student with adapters; by default it is loaded and given rank `rank`.
    """
    rank, epochs = rank or profile.rank, epochs or profile.epochs
    traces = list(traces)
    folder = run_folder(profile, run)
    settings = run_settings(
        profile, traces, rank=rank, epochs=epochs, seed=seed
    )
    resume = open_run(folder, settings, overwrite)
    if (folder / "log.json").exists():
        return read_run(folder)
    if student is None:
        student = add_lora(load_student(profile), rank=rank, seed=seed)
    rows, dropped = encode_traces(
        traces, student.tokenizer, max_length=profile.max_length
    )
    if dropped:
        print(f"{dropped} traces longer than {profile.max_length} dropped")
    trainer = build_trainer(
        student,
        rows,
        folder,
        profile=profile,
        epochs=epochs,
        seed=seed,
        progress=progress,
    )
    started = time.perf_counter()
    trainer.train(resume_from_checkpoint=str(resume) if resume else None)
    return finish_run(trainer, student, folder, time.perf_counter() - started)


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
