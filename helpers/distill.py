"""Logit distillation: the student matches the teacher's distribution.

The student sees the rows of helpers.sft. At every position of the answer it
is asked to match the teacher's distribution, the trace's own token, or both
(`Objective`). The teacher is in memory ("online") or has left its top-k
log-probabilities on disk (helpers.logit_cache).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn.utils import clip_grad_norm_

from helpers import chat
from helpers.features import (
    FeatureTerm,
    Projectors,
    decoder_of,
    hidden_state_loss,
    tapped,
    width,
)
from helpers.logit_cache import LogitCache, PairCollator
from helpers.losses import check_options, check_vocabularies
from helpers.models import Loaded
from helpers.profiles import Profile
from helpers.sft import RunError, TextLesson, train_student
from helpers.trainer import Batch, DistillTrainer

PROJECTOR_FILE = "projectors.safetensors"


@dataclass(frozen=True)
class Objective:
    """What the student is asked to match.

    soft: weight of the teacher's distribution, 0 to 1; the rest is the
        cross-entropy with the trace's own tokens (Hinton et al. 2015,
        arXiv:1503.02531, section 2).
    temperature, kind, beta, skew: see helpers.losses.kd_loss.
    chunk: positions whose logits exist at once; None keeps all of them.
    features: hidden states to imitate as well.
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
        if self.chunk is not None and self.chunk < 1:
            raise RunError(
                f"chunk is {self.chunk}; choose 1 position or more."
            )


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
    rows, dropped = chat.encode_traces(traces, student, max_length=max_length)
    if dropped:
        print(f"{dropped} traces longer than {max_length} dropped")
    fitting = [t for t in traces if chat.encode_trace(t, student, max_length)]
    starts = []
    for trace, row in zip(fitting, rows, strict=True):
        messages = chat.student_messages(trace["question"])
        prompt = chat.prompt_ids(messages, teacher)
        if prompt != row["input_ids"][: len(prompt)]:
            raise RunError(
                f"{trace['id']}: the teacher's prompt is not the beginning "
                "of the student's row. Logit distillation needs one chat "
                "template; use traces (helpers.sft) for this pair."
            )
        starts.append(len(prompt))
    rows = rows.add_column("soft_start", starts)
    return rows.add_column("row", list(range(len(rows))))


class FeatureTrainer(DistillTrainer):
    """DistillTrainer whose objective has `features`.

    The student's states are alive for the backward pass anyway, so they are
    asked for; of the teacher's only the chosen layers are kept, by hooks.
    Raises LossError for a layer that a model does not have.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.student_options["output_hidden_states"] = True
        self.term = self.objective.features
        self.pairs = self.term.pairs(self.student, self.teacher)
        self.taught: dict[int, Tensor] = {}
        self.projectors: Any = None
        if self.term.kind != "relation":
            self.projectors = Projectors(
                self.pairs,
                width(self.student),
                width(self.teacher),
                seed=self.args.seed,
            ).to(self.accelerator.device)

    def ask_teacher(self, asked: Batch) -> Tensor | None:
        layers = [teacher for _, teacher in self.pairs]
        with tapped(self.teacher, layers) as self.taught:
            if self.objective.soft:
                return super().ask_teacher(asked)
            with torch.no_grad():
                decoder_of(self.teacher)(**asked, use_cache=False)
            return None

    def more_loss(self, outputs: Any, mask: Tensor) -> Tensor:
        """Weight times the mean of the pairs' losses."""
        losses = []
        for student, teacher in self.pairs:
            projector = self.projectors and partial(
                self.projectors, student=student, teacher=teacher
            )
            loss = hidden_state_loss(
                outputs.hidden_states[student][:, :-1].float(),
                self.taught[teacher][:, :-1],
                mask,
                projector=projector,
                kind=self.term.kind,
            )
            losses.append(loss)
        self.taught = {}
        return self.term.weight * torch.stack(losses).mean()

    def create_optimizer(self, *args: Any, **options: Any) -> Any:
        """The student's parameters, and the projectors beside them.

        The trainer clips, and forgets the gradients of, its own model only.
        """
        fresh = self.optimizer is None
        optimizer = super().create_optimizer(*args, **options)
        if fresh and self.projectors is not None:
            self.projectors = self.accelerator.prepare_model(self.projectors)
            weights = list(self.projectors.parameters())
            optimizer.add_param_group({"params": weights, "weight_decay": 0.0})
            optimizer.register_step_pre_hook(self.clip_projectors)
            optimizer.register_step_post_hook(
                lambda *_: self.projectors.zero_grad()
            )
        return optimizer

    def clip_projectors(self, *_: Any) -> None:
        """As the student is clipped; apart, so they cannot slow it down."""
        weights = self.projectors.parameters()
        clip_grad_norm_(weights, self.args.max_grad_norm)

    def _save(self, output_dir: Any = None, state_dict: Any = None) -> None:
        """A checkpoint to resume from needs the projectors too."""
        super()._save(output_dir, state_dict)
        if self.projectors is not None:
            state = self.accelerator.unwrap_model(self.projectors).state_dict()
            folder = Path(output_dir or self.args.output_dir)
            save_file(state, folder / PROJECTOR_FILE)

    def _load_from_checkpoint(
        self, checkpoint: Any, model: Any = None
    ) -> None:
        super()._load_from_checkpoint(checkpoint, model)
        if self.projectors is not None:
            state = load_file(Path(checkpoint) / PROJECTOR_FILE)
            projectors = self.accelerator.unwrap_model(self.projectors)
            projectors.load_state_dict(state)


@dataclass(frozen=True)
class Lesson(TextLesson):
    """What a student is to learn: traces, and what the teacher thinks of them.

    teacher: with a `cache` only its tokenizer is used, `teacher.model` may
    be None. Raises RunError for an objective that a cache cannot serve.
    """

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

    def settings(self) -> dict[str, Any]:
        """What decides the lesson, for run.json."""
        objective, cached = asdict(self.objective), self.cache is not None
        return super().settings() | {"objective": objective, "cached": cached}

    def prepare(self, student: Loaded, profile: Profile) -> tuple[Any, Any]:
        """The rows and what makes the trainer.

        Raises LossError when the vocabularies do not agree, CourseError for
        a cache of other rows.
        """
        asked, size = self.objective, len(student.tokenizer)
        chunk = asked.chunk or profile.kd_chunk or None
        pair = student.tokenizer, self.teacher.tokenizer
        check_vocabularies(*pair, size, size)  # the rest is padding
        rows = pair_rows(self.traces, *pair, max_length=profile.max_length)
        if self.cache is not None:
            encoded = rows.select_columns(["input_ids", "labels"])
            self.cache.check_rows(encoded.to_list())
        online = self.cache is None
        make = partial(
            FeatureTrainer if asked.features else DistillTrainer,
            objective=replace(asked, chunk=chunk),
            teacher=self.teacher.model.eval() if online else None,
            vocabulary=size,
            data_collator=PairCollator(
                student.tokenizer.pad_token_id, self.cache
            ),
        )
        return rows, make


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


# A Lesson and a profile of `pair_profile`; the rest is as there.
distill_student = partial(train_student, run="logit")
