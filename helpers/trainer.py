"""The trainer of logit distillation: TRL's SFTTrainer with another loss.

Kept to what changes: what a batch brings, and what a step computes.
helpers.distill decides what it is given.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch.nn import functional

from helpers.features import (
    FeatureTerm,
    Projectors,
    hidden_state_loss,
    tapped,
    width,
)
from helpers.losses import (
    chunked_kd_loss,
    kd_loss,
    shift_for_next_token,
    topk_kd_loss,
)
from helpers.models import unsloth_backend
from helpers.sft import RunError

unsloth_backend()  # it patches what is imported after it

from trl import SFTTrainer  # noqa: E402


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


class PairCollator:
    """Pads rows on the right and lays the cached targets beside them.

    Gives input_ids, attention_mask and labels (batch, tokens), `soft_mask`
    (batch, tokens - 1), shifted like the labels: where the teacher has
    something to say; and with a cache topk_ids, topk_logprobs
    (batch, tokens - 1, k).
    """

    def __init__(self, pad_id: int, cache: Any = None) -> None:
        self.pad_id = pad_id
        self.cache = cache

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        size = len(rows), max(len(row["input_ids"]) for row in rows)
        ids = torch.full(size, self.pad_id)
        labels, attention = torch.full(size, -100), torch.zeros(size).long()
        soft = torch.zeros(size[0], size[1] - 1, dtype=torch.bool)
        for i, row in enumerate(rows):
            end = len(row["input_ids"])
            ids[i, :end] = torch.tensor(row["input_ids"])
            labels[i, :end] = torch.tensor(row["labels"])
            attention[i, :end] = 1
            soft[i, row["soft_start"] - 1 : end - 1] = True
        batch = {
            "input_ids": ids,
            "attention_mask": attention,
            "labels": labels,
            "soft_mask": soft,
        }
        return batch | ({} if self.cache is None else self.targets(rows, size))

    def targets(
        self, rows: list[dict[str, Any]], size: tuple[int, int]
    ) -> dict[str, torch.Tensor]:
        """The cached distributions, each before the token it predicts."""
        shape = size[0], size[1] - 1, self.cache.k
        ids, logprobs = torch.zeros(shape).long(), torch.zeros(shape)
        for i, row in enumerate(rows):
            found, values = self.cache.row(row["row"])
            end = len(row["input_ids"]) - 1
            ids[i, end - len(found) : end] = found
            logprobs[i, end - len(found) : end] = values
        return {"topk_ids": ids, "topk_logprobs": logprobs}


class DistillTrainer(SFTTrainer):
    """TRL's trainer with a distillation loss in place of its own.

    teacher: a model in memory, or None when the rows bring cached targets.
    vocabulary: how many of the teacher's and student's logits mean a token.
    """

    def __init__(
        self,
        *args: Any,
        objective: Objective,
        teacher: Any = None,
        vocabulary: int | None = None,
        **options: Any,
    ) -> None:
        options["args"].remove_unused_columns = False
        super().__init__(*args, **options)
        self.objective, self.teacher = objective, teacher
        self.vocabulary = vocabulary
        self.model_accepts_loss_kwargs = True  # scaled by tokens, see below

    def compute_loss(
        self,
        model: Any,
        inputs: dict[str, torch.Tensor],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> Any:
        """The objective per trained token; exact under accumulation."""
        chunk = self.objective.chunk
        names = ("input_ids", "attention_mask")
        seen = {name: inputs[name] for name in names} | {"use_cache": False}
        if chunk:  # the last hidden states instead of all the logits
            seen |= {"logits_to_keep": 1}
        with self.last_states(model) as own:
            outputs = self.ask_student(model, seen)
        states = own.pop() if chunk else outputs.logits
        states, targets, mask = shift_for_next_token(states, inputs["labels"])
        soft_mask = inputs["soft_mask"] & mask
        loss = self.hard_loss(states, targets, mask, soft_mask)
        with self.last_states(self.teacher) as theirs:
            answer = self.ask_teacher(seen)
        if self.objective.soft:
            kept = theirs.pop() if chunk else getattr(answer, "logits", None)
            soft = self.soft_loss(states, soft_mask, inputs, kept)
            loss = loss + self.objective.soft * soft * soft_mask.sum()
        loss = loss + self.more_loss(outputs, soft_mask) * soft_mask.sum()
        if num_items_in_batch is None:
            num_items_in_batch = mask.sum()
        elif self.args.average_tokens_across_devices:
            loss = loss * self.accelerator.num_processes
        loss = loss / num_items_in_batch
        return (loss, outputs) if return_outputs else loss

    @contextmanager
    def last_states(self, model: Any) -> Iterator[list[torch.Tensor]]:
        """The states that the head of a model reads in a forward pass.

        By a hook, in the head's dtype: `output_hidden_states` would keep
        every layer, and autocast return it in float32. Only for a chunked
        loss.
        """
        found: list[torch.Tensor] = []
        if model is None or not self.objective.chunk:
            yield found
            return
        dtype = self.head(model).dtype
        plain = self.accelerator.unwrap_model(model)
        layers = plain.config.num_hidden_layers
        with tapped(plain, [layers]) as states:
            yield found
        found.append(states[layers].to(dtype))

    def ask_student(self, model: Any, seen: dict[str, Any]) -> Any:
        """The student's forward pass."""
        return model(**seen)

    def ask_teacher(self, seen: dict[str, Any]) -> Any:
        """The teacher's forward pass without a gradient, where needed."""
        if self.teacher is None or not self.objective.soft:
            return None
        with torch.no_grad():
            return self.teacher(**seen)

    def more_loss(self, outputs: Any, mask: torch.Tensor) -> Any:
        """Mean of a further loss over `mask`; none here."""
        return 0.0

    def soft_loss(
        self,
        states: torch.Tensor,
        mask: torch.Tensor,
        inputs: dict[str, torch.Tensor],
        answer: torch.Tensor | None,
    ) -> torch.Tensor:
        """Mean divergence from the teacher over `mask`; no gradient there.

        answer: the teacher's logits, or its last states in chunks.
        """
        wanted = asdict(self.objective)
        del wanted["soft"], wanted["chunk"], wanted["features"]
        if not self.objective.chunk:
            states = states[..., : self.vocabulary]
        if self.teacher is None:
            return topk_kd_loss(
                states,
                inputs["topk_ids"],
                inputs["topk_logprobs"],
                mask,
                temperature=self.objective.temperature,
            )
        if not self.objective.chunk:
            theirs = answer[:, :-1, : self.vocabulary]
            return kd_loss(states, theirs, mask, **wanted)
        return chunked_kd_loss(
            states,
            self.head(self.model)[: self.vocabulary],
            answer[:, :-1],
            self.head(self.teacher)[: self.vocabulary],
            mask,
            chunk=self.objective.chunk,
            **wanted,
        )

    def hard_loss(
        self,
        states: torch.Tensor,
        targets: torch.Tensor,
        mask: torch.Tensor,
        soft_mask: torch.Tensor,
    ) -> torch.Tensor:
        """Weighted sum of cross-entropies with the trace's tokens.

        Full weight where the teacher is silent: its chat template opens the
        thought, so it has never learned to write `<think>` itself.
        """
        share = 1 - self.objective.soft
        asked = mask if share else mask & ~soft_mask
        logits = states[asked]
        if self.objective.chunk:
            logits = functional.linear(logits, self.head(self.model))
        loss = functional.cross_entropy(
            logits.float(), targets[asked], reduction="none"
        )
        weight = torch.where(soft_mask[asked], share, 1.0)
        return (loss * weight).sum()

    def head(self, model: Any) -> torch.Tensor:
        """The output embedding, (vocabulary, width)."""
        model = self.accelerator.unwrap_model(model)
        return model.get_output_embeddings().weight


PROJECTOR_FILE = "projectors.safetensors"


class FeatureTrainer(DistillTrainer):
    """DistillTrainer whose objective has `features`.

    The student's states are alive for the backward pass anyway, so they are
    asked for; of the teacher's only the chosen layers are kept, by hooks.
    Raises LossError for a layer that a model does not have.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.term = self.objective.features
        if self.teacher is None:
            raise RunError(
                "a cache holds log-probabilities, no hidden states: feature "
                "distillation needs the teacher in memory"
            )
        student = self.accelerator.unwrap_model(self.model)
        self.pairs = self.term.pairs(student, self.teacher)
        self.taught: dict[int, torch.Tensor] = {}
        self.projectors: Any = None
        if self.term.kind != "relation":
            device = self.accelerator.device
            self.projectors = Projectors(
                self.pairs,
                width(student),
                width(self.teacher),
                seed=self.args.seed,
            ).to(device)

    def ask_student(self, model: Any, seen: dict[str, Any]) -> Any:
        return model(**seen | {"output_hidden_states": True})

    def ask_teacher(self, seen: dict[str, Any]) -> Any:
        layers = [teacher for _, teacher in self.pairs]
        with torch.no_grad(), tapped(self.teacher, layers) as self.taught:
            return self.teacher(**seen)

    def more_loss(self, outputs: Any, mask: torch.Tensor) -> torch.Tensor:
        """Weight times the mean of the pairs' losses."""
        losses = [
            self.pair_loss(
                outputs.hidden_states[student][:, :-1],
                self.taught[teacher][:, :-1],
                mask,
                student=student,
                teacher=teacher,
            )
            for student, teacher in self.pairs
        ]
        self.taught = {}
        return self.term.weight * torch.stack(losses).mean()

    def pair_loss(
        self,
        student_hidden: torch.Tensor,
        teacher_hidden: torch.Tensor,
        mask: torch.Tensor,
        **pair: int,
    ) -> torch.Tensor:
        """The loss of one pair of layers, through its projector."""

        def projector(states: torch.Tensor) -> torch.Tensor:
            return self.projectors(states.float(), **pair)

        return hidden_state_loss(
            student_hidden,
            teacher_hidden,
            mask,
            projector=projector if self.projectors is not None else None,
            kind=self.term.kind,
        )

    def create_optimizer(self, *args: Any, **options: Any) -> Any:
        """The student's parameters, and the projectors beside them."""
        fresh = self.optimizer is None
        optimizer = super().create_optimizer(*args, **options)
        if fresh and self.projectors is not None:
            self.projectors = self.accelerator.prepare_model(self.projectors)
            group = {"params": list(self.projectors.parameters())}
            optimizer.add_param_group(group | {"weight_decay": 0.0})
            optimizer.register_step_post_hook(
                lambda *_: self.projectors.zero_grad()
            )  # the trainer forgets the gradients of its own model only
        return optimizer

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
            self.accelerator.unwrap_model(self.projectors).load_state_dict(
                state
            )
