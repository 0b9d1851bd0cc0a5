"""On-policy distillation: the student learns on what it writes itself.

Every batch of questions is answered by the student as it is at that step;
then both models read the answer, and the student is moved towards the
teacher at its own positions (GKD, arXiv:2306.13649; MiniLLM,
arXiv:2306.08543). Gradients do not pass through the sampling.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from helpers.distill import Lesson, Objective
from helpers.generate import generate_batch
from helpers.models import Loaded, processes
from helpers.profiles import Profile, Sampling
from helpers.sft import RunError
from helpers.trainer import Batch, DistillTrainer

REVERSE = Objective(kind="reverse")  # weighs by what the student says


@contextlib.contextmanager
def as_it_was(model: Any) -> Iterator[None]:
    """Put training mode and gradient checkpointing back afterwards.

    Unsloth switches checkpointing off when a model in evaluation mode
    generates, and leaves it so: the steps after it would need all memory.
    """
    training, name = model.training, "gradient_checkpointing"
    modules = [m for m in model.modules() if name in vars(m)]
    wanted = [module.gradient_checkpointing for module in modules]
    try:
        yield
    finally:
        model.train(training)
        for module, on in zip(modules, wanted, strict=True):
            module.gradient_checkpointing = on


def own_rows(
    batch: Batch,
    model: Any,
    tokenizer: Any,
    sampling: Sampling,
    write: Callable[..., list[list[int]]] = generate_batch,
) -> list[dict[str, Any]]:
    """The batch's questions with answers that the model writes now.

    batch: of PairCollator; a row up to where the teacher spoke is the
    prompt, so a thought that a template opens is given, and learned as text.
    Returns rows with input_ids, labels and soft_start, unpadded.
    """
    starts = [int(row.nonzero()[0]) + 1 for row in batch["soft_mask"]]
    prompts = [
        ids[:start].tolist()
        for ids, start in zip(batch["input_ids"], starts, strict=True)
    ]
    with as_it_was(model):
        answers = write(model.eval(), tokenizer, prompts, sampling=sampling)
    return [
        {
            "input_ids": prompt + answer,
            "labels": labels[:start].tolist() + answer,
            "soft_start": start,
        }
        for prompt, answer, labels, start in zip(
            prompts, answers, batch["labels"], starts, strict=True
        )
    ]


class OnPolicyTrainer(DistillTrainer):
    """DistillTrainer whose texts are, to a share, the student's own.

    share: of the steps, chosen by lot, that read the student's own text
    instead of the traces'. sampling: how it writes. What a step reads
    depends on its number and the seed alone, so a resumed run equals an
    uninterrupted one.
    """

    def __init__(
        self, *args: Any, share: float, sampling: Sampling, **options: Any
    ) -> None:
        super().__init__(*args, **options)
        self.share, self.sampling = share, sampling

    def get_batch_samples(
        self, epoch_iterator: Iterator, num_batches: int, device: Any
    ) -> tuple[list[Batch], Any]:
        """The batches of a step; its tokens are counted in what is read."""
        batches, count = super().get_batch_samples(
            epoch_iterator, num_batches, device
        )
        step = self.state.global_step
        if random.Random(f"{self.args.seed}-{step}").random() >= self.share:
            return batches, count
        devices = [device] if device.type == "cuda" else []
        with torch.random.fork_rng(devices):  # not those of other processes
            torch.manual_seed(
                self.args.seed * 100_003
                + step * processes().num_processes
                + processes().process_index
            )
            batches = [self.own(batch) for batch in batches]
        return batches, self._get_num_items_in_batch(batches, device)

    def own(self, batch: Batch) -> dict[str, Tensor]:
        """The batch with the student's answers, padded and collated anew."""
        student = self.student
        rows = own_rows(batch, student, self.processing_class, self.sampling)
        return self.data_collator(rows)


@dataclass(frozen=True)
class OnPolicyLesson(Lesson):
    """Questions, and the teacher's opinion of the student's own answers.

    share: as in OnPolicyTrainer, 0 to 1; with 0 this is a `Lesson`.
    temperature: the student's when it writes; 1 is its own distribution.
    """

    share: float = 1.0
    temperature: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.cache is not None or self.objective.features is not None:
            raise RunError(
                "on its own text the student needs the teacher in memory, "
                "for logits alone: no cache, no features"
            )
        if not 0 <= self.share <= 1:
            raise RunError(f"share is {self.share}; choose one of 0 to 1.")

    def settings(self) -> dict[str, Any]:
        own = {"share": self.share, "temperature": self.temperature}
        return super().settings() | {"on_policy": own}

    def prepare(self, student: Loaded, profile: Profile) -> tuple[Any, Any]:
        """As there; a text has room for no more than a row of the traces."""
        rows, make = super().prepare(student, profile)
        room = max(1, profile.max_length - max(rows["soft_start"]))
        sampling = replace(
            profile.greedy,
            temperature=self.temperature,
            max_new_tokens=min(room, profile.max_new_tokens),
        )
        options = {"share": self.share, "sampling": sampling}
        return rows, partial(OnPolicyTrainer, **make.keywords, **options)
