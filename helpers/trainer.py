"""The trainer of logit distillation: TRL's SFTTrainer with another loss.

Kept to what changes: what a step computes. helpers.distill decides what it is
given, and makes its batches.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional
from torch.nn.utils import clip_grad_norm_
from torch.utils.checkpoint import checkpoint

from helpers.features import (
    Projectors,
    decoder_of,
    depth,
    hidden_state_loss,
    tapped,
    width,
)
from helpers.losses import (
    chunked_kd_loss,
    kd_loss,
    output_head,
    shift_for_next_token,
    topk_kd_loss,
)
from helpers.models import unsloth_backend

unsloth_backend()  # it patches what is imported after it

from trl import SFTTrainer  # noqa: E402

if TYPE_CHECKING:
    from helpers.distill import Objective

Batch = dict[str, Tensor]
PROJECTOR_FILE = "projectors.safetensors"


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
        super().__init__(*args, **options)
        self.objective, self.teacher = objective, teacher
        self.vocabulary = vocabulary
        self.student_options = {"use_cache": False}
        self.model_accepts_loss_kwargs = True  # scaled by tokens, see below
        if objective.chunk:  # the last hidden states instead of all logits
            self.student_options["logits_to_keep"] = 1
            for model in (self.student, teacher):
                output_head(model)  # refuses now, not at the first step

    @property
    def student(self) -> Any:
        """The model without what accelerate wraps around it."""
        return self.accelerator.unwrap_model(self.model)

    def compute_loss(
        self,
        model: Any,
        inputs: Batch,
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        """The objective per trained token; exact under accumulation."""
        asked = {
            name: inputs[name] for name in ("input_ids", "attention_mask")
        }
        outputs, states = self.ask_student(model, asked)
        states, targets, mask = shift_for_next_token(states, inputs["labels"])
        soft_mask = inputs["soft_mask"] & mask
        loss = self.hard_loss(states, targets, mask, soft_mask)
        taught = self.ask_teacher(asked)
        if weight := self.objective.soft:
            soft = self.soft_loss(states, taught, soft_mask, inputs)
            loss = loss + weight * soft * soft_mask.sum()
        loss = loss + self.more_loss(outputs, soft_mask) * soft_mask.sum()
        if num_items_in_batch is None:
            num_items_in_batch = mask.sum()
        elif self.args.average_tokens_across_devices:
            loss = loss * self.accelerator.num_processes
        loss = loss / num_items_in_batch
        return (loss, outputs) if return_outputs else loss

    def ask_student(self, model: Any, asked: Batch) -> tuple[Any, Tensor]:
        """The student's forward pass, and its logits or last hidden states.

        The states are what the decoder returns: Unsloth on a GPU never calls
        the module of the final norm, and `output_hidden_states` would keep
        every layer.
        """
        if not self.objective.chunk:
            outputs = model(**asked, **self.student_options)
            return outputs, outputs.logits
        last = depth(self.student)
        with tapped(self.student, [last]) as states:
            outputs = model(**asked, **self.student_options)
        return outputs, states[last]

    @torch.no_grad()
    def ask_teacher(self, asked: Batch) -> Tensor | None:
        """The teacher's logits, or last hidden states in chunks."""
        if self.teacher is None or not self.objective.soft:
            return None
        if not self.objective.chunk:
            return self.teacher(**asked, use_cache=False).logits
        return decoder_of(self.teacher)(**asked, use_cache=False)[0]

    def more_loss(self, outputs: Any, mask: Tensor) -> Any:
        """Mean of a further loss over `mask`; none here."""
        return 0.0

    def soft_loss(
        self, states: Tensor, taught: Any, mask: Tensor, inputs: Batch
    ) -> Tensor:
        """Mean divergence from the teacher over `mask`; no gradient there.

        states, taught: logits of both models, or last states in chunks.
        """
        objective, size = self.objective, self.vocabulary
        if self.teacher is None:
            return topk_kd_loss(
                states[..., :size],
                inputs["topk_ids"],
                inputs["topk_logprobs"],
                mask,
                temperature=objective.temperature,
            )
        names = ("temperature", "kind", "beta", "skew")
        options = {name: getattr(objective, name) for name in names}
        taught = taught[:, :-1]
        if not objective.chunk:
            return kd_loss(
                states[..., :size], taught[..., :size], mask, **options
            )
        return chunked_kd_loss(
            states,
            output_head(self.student, size),
            taught,
            output_head(self.teacher, size),
            mask,
            chunk=objective.chunk,
            **options,
        )

    def hard_loss(
        self, states: Tensor, targets: Tensor, mask: Tensor, soft_mask: Tensor
    ) -> Tensor:
        """Weighted sum of cross-entropies with the trace's tokens.

        Full weight where the teacher is silent: its chat template opens the
        thought, so it has never learned to write `<think>` itself.
        """
        share = 1 - self.objective.soft
        asked = mask if share else mask & ~soft_mask
        weights = torch.where(soft_mask[asked], share, 1.0)
        states, targets = states[asked], targets[asked]
        if not self.objective.chunk:
            return weighted_cross_entropy(states, targets, weights)
        head = output_head(self.student)

        def part(states: Tensor, *rest: Tensor) -> Tensor:
            return weighted_cross_entropy(head(states), *rest)

        split = [
            tensor.split(self.objective.chunk)
            for tensor in (states, targets, weights)
        ]
        return sum(
            checkpoint(part, *tensors, use_reentrant=False)
            for tensors in zip(*split, strict=True)
        )


def weighted_cross_entropy(
    logits: Tensor, targets: Tensor, weights: Tensor
) -> Tensor:
    """A sum over positions, in float32."""
    loss = functional.cross_entropy(logits.float(), targets, reduction="none")
    return (loss * weights).sum()


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
