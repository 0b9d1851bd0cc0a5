"""The feature half of distillation: hidden states as a further target.

Adds to DistillTrainer a forward pass that keeps the chosen states, the loss
between them, and projectors that are trained and saved beside the student.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from helpers.distill_trainer import DistillTrainer
from helpers.feature_losses import hidden_state_loss
from helpers.features import Projectors, tapped, width
from helpers.runs import RunError

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
