"""Logit distillation: the student matches the teacher's distribution.

The student sees the rows of helpers.sft. At every position of the answer it
is asked to match the teacher's distribution, the trace's own token, or both
(`Objective`). The teacher is in memory ("online") or has left its top-k
log-probabilities on disk (helpers.logit_cache).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from helpers import chat
from helpers.features import FeatureTerm
from helpers.logit_cache import LogitCache
from helpers.losses import check_options, check_vocabularies
from helpers.models import Loaded
from helpers.profiles import Profile
from helpers.runs import (
    RunError,
    TrainingRun,
    run_folder,
    run_settings,
    run_training,
)
from helpers.sft import encode_traces, prepared, trainer_options
from helpers.trainer import DistillTrainer, FeatureTrainer


@dataclass(frozen=True)
class Objective:
    """What the student is asked to match.

    soft: weight of the teacher's distribution, 0 to 1; the rest is the
        cross-entropy with the trace's own tokens (Hinton et al. 2015,
        arXiv:1503.02531, section 2).
    temperature, kind, beta, skew: see helpers.losses.kd_loss.
    chunk: positions whose logits exist at once (online teacher, soft = 1);
        None keeps all of them.
    features: hidden states to imitate as well (helpers.trainer).
    """

    soft: float = 1.0
    temperature: float = 1.0
    kind: str = "forward"
    beta: float = 0.5
    skew: float = 0.1
    chunk: int | None = None
    features: FeatureTerm | None = None

    def __post_init__(self) -> None:
        check_options(self.temperature, self.kind, self.beta, self.skew)
        if not 0 <= self.soft <= 1:
            raise RunError(f"soft is {self.soft}; choose a weight of 0 to 1.")
        if self.chunk is not None and (self.soft < 1 or self.chunk < 1):
            raise RunError(
                f"chunk = {self.chunk} with soft = {self.soft}: a chunked "
                "loss needs soft = 1 and a chunk of at least 1 position."
            )

    def chunked(self, size: int) -> Objective:
        """The same objective in chunks, where that is possible."""
        possible = self.soft == 1 and self.features is None
        return replace(self, chunk=self.chunk or size) if possible else self


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
    traces: list[dict], student: Any, teacher: Any, *, max_length: int
) -> Any:
    """Rows of helpers.sft with `row` and `soft_start`.

    student, teacher: the two tokenizers. What is longer than `max_length`
    is dropped, as a cache of the same traces drops it. `soft_start` is the
    first position that the teacher wrote: its chat template may open the
    thought, and what a template writes was never trained.
    """
    fitting = [
        trace
        for trace in traces
        if chat.encode_example(
            chat.student_messages(trace["question"], trace["qwen3_answer"]),
            student,
            max_length=max_length,
        )
    ]
    if long := len(traces) - len(fitting):
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


class PairCollator:
    """Pads rows on the right and lays the cached targets beside them.

    Gives input_ids, attention_mask and labels (batch, tokens), `soft_mask`
    (batch, tokens - 1), shifted like the labels: where the teacher has
    something to say; and with a cache topk_ids, topk_logprobs
    (batch, tokens - 1, k), each before the token it predicts.
    """

    def __init__(self, pad_id: int, cache: Any = None) -> None:
        self.pad_id = pad_id
        self.cache = cache

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, Tensor]:
        size = len(rows), max(len(row["input_ids"]) for row in rows)
        batch = {
            "input_ids": torch.full(size, self.pad_id),
            "attention_mask": torch.zeros(size, dtype=torch.long),
            "labels": torch.full(size, -100),
            "soft_mask": torch.zeros(size[0], size[1] - 1, dtype=torch.bool),
        }
        if self.cache is not None:
            shape = size[0], size[1] - 1, self.cache.k
            batch["topk_ids"] = torch.zeros(shape, dtype=torch.long)
            batch["topk_logprobs"] = torch.zeros(shape)
        for i, row in enumerate(rows):
            end = len(row["input_ids"])
            batch["input_ids"][i, :end] = torch.tensor(row["input_ids"])
            batch["attention_mask"][i, :end] = 1
            batch["labels"][i, :end] = torch.tensor(row["labels"])
            batch["soft_mask"][i, row["soft_start"] - 1 : end - 1] = True
            if self.cache is not None:
                ids, logprobs = self.cache.row(row["row"])
                places = slice(end - 1 - len(ids), end - 1)
                batch["topk_ids"][i, places] = ids
                batch["topk_logprobs"][i, places] = logprobs
        return batch


@dataclass(frozen=True)
class Lesson:
    """What a student is to learn: traces, and what the teacher thinks of them.

    teacher: with a `cache` only its tokenizer is used, `teacher.model` may
    be None. Raises RunError for an objective that a cache cannot serve.
    """

    traces: list[dict]
    teacher: Loaded
    objective: Objective
    cache: LogitCache | None = None

    def __post_init__(self) -> None:
        if self.cache is None:
            return
        asked = self.objective
        if asked.features is not None:
            raise RunError(
                "a cache holds log-probabilities, no hidden states: feature "
                "distillation needs the teacher in memory"
            )
        if asked.kind != "forward":
            raise RunError(
                f"a cache holds too few tokens for kind {asked.kind!r}, only "
                "forward works: use the teacher in memory (logit_online)"
            )
        if asked.temperature != self.cache.temperature:
            raise RunError(
                f"the cache was made at temperature {self.cache.temperature:g}"
                f", the objective asks for {asked.temperature:g}: make "
                "another with write_cache(temperature=...)"
            )

    def trainer(
        self,
        student: Loaded,
        folder: Path | None = None,
        *,
        profile: Profile,
        seed: int = 7,
        progress: bool = True,
    ) -> Any:
        """A trainer for the profile's epochs; no folder, nothing saved.

        Raises LossError when the vocabularies do not agree, CourseError for
        a cache of other rows.
        """
        objective, size = self.objective, len(student.tokenizer)
        online = self.cache is None
        if profile.kd_chunk and online:
            objective = objective.chunked(profile.kd_chunk)
        pair = student.tokenizer, self.teacher.tokenizer
        check_vocabularies(*pair, size, size)  # the rest is padding
        rows = pair_rows(self.traces, *pair, max_length=profile.max_length)
        if not online:
            self.cache.check_rows(
                rows.select_columns(["input_ids", "labels"]).to_list()
            )
        options = trainer_options(
            student,
            rows,
            folder,
            profile=profile,
            seed=seed,
            progress=progress,
        ) | {
            "objective": objective,
            "teacher": self.teacher.model.eval() if online else None,
            "vocabulary": size,
            "data_collator": PairCollator(
                student.tokenizer.pad_token_id, self.cache
            ),
        }
        kind = FeatureTrainer if objective.features else DistillTrainer
        return prepared(kind, options)


def pair_trainer(
    traces: Iterable[dict],
    student: Loaded,
    teacher: Loaded,
    *,
    profile: Profile,
    objective: Objective,
    epochs: int,
    cache: LogitCache | None = None,
    seed: int = 7,
) -> Any:
    """The trainer of a notebook, which saves nothing; see `Lesson`."""
    lesson = Lesson(list(traces), teacher, objective, cache)
    profile = replace(profile, epochs=epochs)
    return lesson.trainer(student, profile=profile, seed=seed)


def distill_student(
    lesson: Lesson,
    *,
    profile: Profile,
    run: str = "logit",
    epochs: int | None = None,
    seed: int = 7,
    overwrite: bool = False,
    progress: bool = True,
    student: Loaded | None = None,
) -> TrainingRun:
    """Train the profile's student on a lesson; profile: of `pair_profile`.

    Continues a killed run and refuses one with other settings, like
    `train_student`.
    """
    if epochs is not None:
        profile = replace(profile, epochs=epochs)

    def build(student: Loaded, folder: Path) -> Any:
        return lesson.trainer(
            student, folder, profile=profile, seed=seed, progress=progress
        )

    return run_training(
        build,
        run_folder(profile, run),
        run_settings(
            profile,
            lesson.traces,
            seed=seed,
            objective=asdict(lesson.objective),
            cached=lesson.cache is not None,
        ),
        profile=profile,
        overwrite=overwrite,
        student=student,
    )
