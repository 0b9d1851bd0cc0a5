"""Response distillation: one trainer, one schedule, a checkpoint per epoch.

TRL trains; this module only decides what it is given. helpers.runs says what
a run leaves on disk.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from helpers import chat
from helpers.models import Loaded, processes, quiet
from helpers.profiles import RUNS, Profile
from helpers.runs import (
    RunError,
    TrainingRun,
    open_run,
    read_run,
    run_folder,
    run_settings,
    run_training,
    save_adapter,
)

__all__ = [
    "RunError",
    "build_trainer",
    "encode_traces",
    "open_run",
    "read_run",
    "save_adapter",
    "train_student",
]


def encode_traces(
    traces: Iterable[dict], tokenizer: Any, *, max_length: int
) -> tuple[Any, int]:
    """Rows of `input_ids` and `labels`, and how many were too long.

    A row longer than `max_length` is dropped, never cut. Raises RunError
    when nothing is left, CourseError when no token or every token is trained.
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
            if not logs or "loss" not in logs:
                return
            loss = float(logs["loss"])
            self.bar.set_postfix(loss=f"{loss:.3f}")
            if not math.isfinite(loss):
                raise RunError(
                    f"the loss is {loss} at step {state.global_step}: the "
                    f"learning rate {args.learning_rate:g} is too high, or a "
                    "weight of the student is NaN. Lower "
                    "DISTILL_LEARNING_RATE and overwrite this run."
                )

        def on_epoch_end(self, args, state, control, model=None, **_):
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
) -> Any:
    """TRL's SFTTrainer over the encoded rows; no folder, nothing saved."""
    from trl import SFTTrainer

    options = trainer_options(
        student,
        rows,
        folder,
        profile=replace(profile, epochs=epochs),
        seed=seed,
        progress=progress,
    )
    return prepared(SFTTrainer, options)


def trainer_options(
    student: Loaded,
    rows: Any,
    folder: Path | None,
    *,
    profile: Profile,
    seed: int,
    progress: bool,
) -> dict[str, Any]:
    """What every trainer of the course is given, whatever its loss."""
    config = sft_config(
        profile, folder, epochs=profile.epochs, rows=len(rows), seed=seed
    )
    callback = make_callback(folder, student.tokenizer, progress=progress)
    return {
        "model": student.model,
        "args": config,
        "train_dataset": rows,
        "processing_class": student.tokenizer,
        "callbacks": [callback],
    }


def prepared(make: Callable[..., Any], options: dict[str, Any]) -> Any:
    """The trainer, made in silence; `library_changed` says what it changed.

    TRL casts adapters to bfloat16 when the model is quantized, but resuming
    loads them as float32; keeping them in float32 from the start makes a
    resumed run equal to an uninterrupted one.
    """
    from transformers import PrinterCallback
    from transformers.trainer_utils import align_special_tokens

    asked = options["args"].to_dict()
    with quiet():
        trainer = make(**options)
        align_special_tokens(trainer.model, options["processing_class"])
    trainer.library_changed = {
        name: [asked.get(name), value]
        for name, value in trainer.args.to_dict().items()
        if asked.get(name) != value
    }
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
    student with adapters; by default it is loaded and given the profile's
    rank.
    """
    traces = list(traces)
    if epochs is not None:
        profile = replace(profile, epochs=epochs)

    def build(student: Loaded, folder: Path) -> Any:
        rows, dropped = encode_traces(
            traces, student.tokenizer, max_length=profile.max_length
        )
        if dropped:
            print(f"{dropped} traces longer than {profile.max_length} dropped")
        return build_trainer(
            student,
            rows,
            folder,
            profile=profile,
            epochs=profile.epochs,
            seed=seed,
            progress=progress,
        )

    return run_training(
        build,
        run_folder(profile, run),
        run_settings(profile, traces, seed=seed),
        profile=profile,
        overwrite=overwrite,
        student=student,
    )
