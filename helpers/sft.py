"""Training a student: one trainer, one schedule, a checkpoint per epoch.

TRL trains; this module decides what it is given. helpers.runs says what a
run leaves on disk.
"""

from __future__ import annotations

import hashlib
import json
import math
import shutil
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from helpers import chat, quiet, write_atomic
from helpers.models import (
    Loaded,
    add_lora,
    load_student,
    peak_memory_mb,
    processes,
)
from helpers.profiles import RUNS, Profile
from helpers.runs import (
    RunError,
    TrainingRun,
    open_run,
    read_run,
    run_folder,
    save_adapter,
)

SETTINGS = (  # of a profile: they must be equal for a run to be continued
    *("learning_rate", "batch_size", "gradient_accumulation", "epochs"),
    *("max_length", "dtype", "load_in_4bit"),
)


@dataclass(frozen=True)
class TextLesson:
    """What a student is to learn: the text of traces."""

    traces: list[dict]

    def settings(self) -> dict[str, Any]:
        """What decides the lesson, for run.json."""
        texts = [(row["question"], row["qwen3_answer"]) for row in self.traces]
        digest = hashlib.sha256(json.dumps(texts).encode()).hexdigest()
        return {"traces": len(texts), "traces_sha256": digest[:12]}

    def prepare(self, student: Loaded, profile: Profile) -> tuple[Any, Any]:
        """The encoded rows, and what makes a trainer (`build_trainer`)."""
        limit = profile.max_length
        rows, dropped = encode_traces(
            self.traces, student.tokenizer, max_length=limit
        )
        if dropped:
            print(f"{dropped} traces longer than {limit} dropped")
        return rows, None

    def trainer(
        self,
        student: Loaded,
        folder: Path | None = None,
        *,
        profile: Profile,
        seed: int = 7,
        progress: bool = True,
    ) -> Any:
        """A trainer for the profile's epochs; no folder, nothing saved."""
        rows, make = self.prepare(student, profile)
        options = {"profile": profile, "epochs": profile.epochs, "make": make}
        options |= {"seed": seed, "progress": progress}
        return build_trainer(student, rows, folder, **options)


def encode_trace(trace: dict, tokenizer: Any, max_length: int) -> dict | None:
    """The training row of a trace; None where it is too long."""
    messages = chat.student_messages(trace["question"], trace["qwen3_answer"])
    return chat.encode_example(messages, tokenizer, max_length=max_length)


def encode_traces(
    traces: Iterable[dict], tokenizer: Any, *, max_length: int
) -> tuple[Any, int]:
    """Rows of `input_ids` and `labels`, and how many were too long.

    A row longer than `max_length` is dropped, never cut. Raises RunError
    when nothing is left, CourseError when no token or every token is trained.
    """
    from datasets import Dataset

    rows = [encode_trace(trace, tokenizer, max_length) for trace in traces]
    dropped = rows.count(None)
    rows = [row for row in rows if row is not None]
    if not rows:
        raise RunError(
            f"no trace is left to train on ({dropped} were longer than "
            f"{max_length} tokens). Raise DISTILL_MAX_LENGTH or relax the "
            "filter."
        )
    chat.trained_share(rows)
    return Dataset.from_list(rows), dropped


def sft_config(
    profile: Profile, folder: Path | None, *, rows: int, seed: int
) -> Any:
    """The one TRL configuration of the course."""
    from trl import SFTConfig

    per_step = profile.batch_size * profile.gradient_accumulation
    per_step *= processes().num_processes
    steps = -(-rows // per_step) * profile.epochs
    return SFTConfig(
        output_dir=str((folder or RUNS / "unsaved") / "resume"),
        num_train_epochs=profile.epochs,
        per_device_train_batch_size=profile.batch_size,
        gradient_accumulation_steps=profile.gradient_accumulation,
        learning_rate=profile.learning_rate,
        lr_scheduler_type="cosine",
        warmup_steps=max(1, steps // 20),
        max_grad_norm=1.0,
        max_length=None,  # too long rows are gone: nothing may be cut
        packing=False,
        remove_unused_columns=False,  # rows bring only what a loss reads
        bf16=profile.dtype == "bfloat16",
        gradient_checkpointing=profile.gradient_checkpointing,
        gradient_checkpointing_kwargs={"use_reentrant": False},
        optim="adamw_torch_fused",
        save_strategy="no" if folder is None else "epoch",
        save_total_limit=1,
        logging_steps=max(1, steps // 40),
        logging_first_step=True,
        logging_nan_inf_filter=False,  # it would log a NaN as 0
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
    """Keeps an adapter per epoch, draws one bar, and stops at a NaN."""
    from tqdm.auto import tqdm
    from transformers import TrainerCallback

    class EpochKeeper(TrainerCallback):
        def on_train_begin(self, args, state, control, **_):
            self.bar = tqdm(
                total=state.max_steps,
                initial=state.global_step,
                desc="training",
                disable=not progress or not processes().is_main_process,
            )

        def on_step_end(self, args, state, control, **_):
            self.bar.update(1)

        def on_log(self, args, state, control, logs, **_):
            loss = float(logs.get("loss", 0.0))  # the last log has none
            self.bar.set_postfix(loss=f"{loss:.3f}")
            if not math.isfinite(loss):
                raise RunError(
                    f"the loss is {loss} at step {state.global_step}: the "
                    f"learning rate {args.learning_rate:g} is too high, or a "
                    "weight of the student is NaN. Lower "
                    "DISTILL_LEARNING_RATE and overwrite this run."
                )

        def on_epoch_end(self, args, state, control, model, **_):
            if folder is not None:
                place = folder / f"epoch_{round(state.epoch)}"
                save_adapter(model, tokenizer, place)

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
    """A trainer over encoded rows, made in silence; no folder, nothing saved.

    make: a subclass of TRL's SFTTrainer with options of its own, or None for
    SFTTrainer itself. `library_changed` of the result names each setting
    that a library changed, as [asked for, in force].
    """
    from transformers import PrinterCallback
    from transformers.trainer_utils import align_special_tokens
    from trl import SFTTrainer

    profile = replace(profile, epochs=epochs)
    config = sft_config(profile, folder, rows=len(rows), seed=seed)
    asked = config.to_dict()
    keeper = make_callback(folder, student.tokenizer, progress=progress)
    with quiet():
        trainer = (make or SFTTrainer)(
            model=student.model,
            args=config,
            train_dataset=rows,
            processing_class=student.tokenizer,
            callbacks=[keeper],
        )
        align_special_tokens(trainer.model, student.tokenizer)
    trainer.library_changed = {
        name: [asked.get(name), value]
        for name, value in trainer.args.to_dict().items()
        if asked.get(name) != value
    }
    trainer.remove_callback(PrinterCallback)
    # TRL casts adapters of a quantized model to bfloat16, but resuming loads
    # them as float32: only so does a resumed run equal an uninterrupted one.
    for parameter in trainer.model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    return trainer


def train_student(
    traces: Iterable[dict] | TextLesson,
    *,
    profile: Profile,
    run: str = "sft",
    epochs: int | None = None,
    seed: int = 7,
    overwrite: bool = False,
    progress: bool = True,
    student: Loaded | None = None,
) -> TrainingRun:
    """Train the profile's student with QLoRA; returns the run.

    traces: their text is learned; or a lesson (helpers.distill). A killed
    run is continued when it is started again with the same settings; a
    finished one is read back, not trained twice. With `overwrite` an older
    run of that name is deleted first. `student` is a student with adapters;
    by default it is loaded and given the profile's rank.
    """
    lesson = traces
    if not isinstance(lesson, TextLesson):
        lesson = TextLesson(list(traces))
    if epochs is not None:
        profile = replace(profile, epochs=epochs)
    folder = run_folder(profile, run)
    rank = adapter_rank(student.model) if student else profile.rank
    settings = {name: getattr(profile, name) for name in SETTINGS}
    settings |= {"student": Path(profile.student).name, "rank": rank}
    settings |= {"seed": seed, **lesson.settings()}
    resume = open_run(folder, settings, overwrite)
    if (folder / "log.json").exists():
        return read_run(folder)
    if student is None:
        student = add_lora(load_student(profile), rank=rank, seed=seed)
    trainer = lesson.trainer(
        student, folder, profile=profile, seed=seed, progress=progress
    )
    if processes().is_main_process:
        record = settings | {"library_changed": trainer.library_changed}
        text = json.dumps(record, indent=1, default=str)
        write_atomic(folder / "run.json", text)
    started = time.perf_counter()
    trainer.train(resume_from_checkpoint=str(resume) if resume else None)
    return finish_run(trainer, folder, time.perf_counter() - started)


def adapter_rank(model: Any) -> int | None:
    """The rank of the model's adapters; None where all of it is trained."""
    adapters = getattr(model, "peft_config", None)
    return adapters[model.active_adapter].r if adapters else None


def finish_run(trainer: Any, folder: Path, seconds: float) -> TrainingRun:
    """Save `final` and the log, then drop what was only for resuming."""
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
