"""Logit distillation: the student matches the teacher's distribution.

The student sees the rows of helpers.sft. At every position of the answer it
is asked to match the teacher's distribution, the trace's own token, or both
(`Objective`). The teacher is in memory ("online") or has left its top-k
log-probabilities on disk (helpers.logit_cache).
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

from helpers import chat
from helpers.losses import check_vocabularies
from helpers.models import Loaded, add_lora, load_student
from helpers.profiles import Profile
from helpers.sft import (
    RunError,
    TrainingRun,
    build_trainer,
    encode_traces,
    finish_run,
    open_run,
    read_run,
    run_folder,
    run_settings,
)
from helpers.trainer import (
    DistillTrainer,
    FeatureTrainer,
    Objective,
    PairCollator,
)

__all__ = [
    "Objective",
    "distill_student",
    "pair_profile",
    "pair_rows",
    "pair_trainer",
]


def pair_profile(profile: Profile) -> Profile:
    """The profile with the one-tokenizer pair as its teacher and student.

    Its batches are smaller where logits would not fit; a step reads as many
    rows as before.
    """
    rows = profile.batch_size * profile.gradient_accumulation
    batch = min(profile.kd_batch_size, profile.batch_size)
    return replace(
        profile,
        teacher=profile.kd_teacher,
        student=profile.kd_student,
        batch_size=batch,
        gradient_accumulation=max(1, rows // batch),
        evaluation_batch=profile.teacher_batch,
    )


def pair_rows(
    traces: Iterable[dict], student: Any, teacher: Any, *, max_length: int
) -> Any:
    """Rows of helpers.sft with `row` and `soft_start`.

    student, teacher: the two tokenizers. What is longer than `max_length`
    is dropped, as a cache of the same traces drops it. `soft_start` is the
    first position that the teacher wrote: its chat template may open the
    thought, and what a template writes was never trained.
    """
    traces = list(traces)
    fitting = [
        trace
        for trace in traces
        if chat.encode_example(
            chat.student_messages(trace["question"], trace["qwen3_answer"]),
            student,
            max_length=max_length,
        )
    ]
    if len(fitting) < len(traces):
        long = len(traces) - len(fitting)
        print(f"{long} traces longer than {max_length} dropped")
    rows, _ = encode_traces(fitting or traces, student, max_length=max_length)
    starts = []
    for trace, row in zip(fitting, rows, strict=True):
        messages = chat.student_messages(trace["question"])
        theirs = chat.prompt_ids(messages, teacher)
        if theirs != row["input_ids"][: len(theirs)]:
            raise RunError(
                f"{trace['id']}: the teacher's prompt is not the beginning "
                "of the student's row. Logit distillation needs one chat "
                "template; use traces (helpers.sft) for this pair."
            )
        starts.append(len(theirs))
    rows = rows.add_column("soft_start", starts)
    return rows.add_column("row", list(range(len(rows))))


def pair_trainer(
    traces: Iterable[dict],
    student: Loaded,
    teacher: Loaded,
    *,
    profile: Profile,
    objective: Objective,
    epochs: int,
    cache: Any = None,
    folder: Path | None = None,
    seed: int = 7,
    progress: bool = True,
) -> DistillTrainer:
    """The trainer of `distill_student`; without `folder` nothing is saved.

    Raises LossError when the two vocabularies do not agree.
    """
    if profile.kd_chunk and cache is None:
        objective = objective.chunked(profile.kd_chunk)
    size = len(student.tokenizer)  # what lies behind it is padding
    check_vocabularies(student.tokenizer, teacher.tokenizer, size, size)
    rows = pair_rows(
        traces,
        student.tokenizer,
        teacher.tokenizer,
        max_length=profile.max_length,
    )
    make = partial(
        FeatureTrainer if objective.features else DistillTrainer,
        objective=objective,
        teacher=None if cache is not None else teacher.model.eval(),
        vocabulary=size,
        data_collator=PairCollator(student.tokenizer.pad_token_id, cache),
    )
    return build_trainer(
        student,
        rows,
        folder,
        profile=profile,
        epochs=epochs,
        seed=seed,
        progress=progress,
        make=make,
    )


def distill_student(
    traces: Iterable[dict],
    *,
    profile: Profile,
    objective: Objective,
    teacher: Loaded,
    cache: Any = None,
    run: str | None = None,
    rank: int | None = None,
    epochs: int | None = None,
    seed: int = 7,
    overwrite: bool = False,
    progress: bool = True,
    student: Loaded | None = None,
) -> TrainingRun:
    """Train the profile's student on what the teacher thinks of the traces.

    profile: of `pair_profile`. teacher: in memory; with a `cache` only its
    tokenizer is used and `teacher.model` may be None. Continues a killed run
    and refuses one with other settings, like `train_student`.
    """
    traces = list(traces)
    rank, epochs = rank or profile.rank, epochs or profile.epochs
    folder = run_folder(profile, run or "logit")
    settings = run_settings(
        profile, traces, rank=rank, epochs=epochs, seed=seed
    ) | {"objective": asdict(objective), "cached": cache is not None}
    resume = open_run(folder, settings, overwrite)
    if (folder / "log.json").exists():
        return read_run(folder)
    if student is None:
        student = add_lora(load_student(profile), rank=rank, seed=seed)
    trainer = pair_trainer(
        traces,
        student,
        teacher,
        profile=profile,
        objective=objective,
        cache=cache,
        folder=folder,
        epochs=epochs,
        seed=seed,
        progress=progress,
    )
    started = time.perf_counter()
    trainer.train(resume_from_checkpoint=str(resume) if resume else None)
    return finish_run(trainer, student, folder, time.perf_counter() - started)
