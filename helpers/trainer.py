"""How TRL trains here: its configuration, and the loss of a step.

helpers.sft makes the trainers, helpers.distill decides what they match.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.checkpoint import checkpoint
from tqdm.auto import tqdm

from helpers.features import decoder_of, depth, tapped
from helpers.files.runs import save_adapter
from helpers.losses import (
    chunked_kd_loss,
    kd_loss,
    output_head,
    shift_for_next_token,
    topk_kd_loss,
)
from helpers.models import processes, unsloth_backend
from helpers.profiles import RUNS, Profile
from helpers.sft import RunError

unsloth_backend()  # it patches what is imported after it

from transformers import TrainerCallback  # noqa: E402
from trl import SFTConfig, SFTTrainer  # noqa: E402

if TYPE_CHECKING:
    from helpers.distill import Objective

Batch = dict[str, Tensor]


def sft_config(
    profile: Profile, folder: Path | None, *, rows: int, seed: int
) -> Any:
    """The one TRL configuration of the course."""
    per_step = profile.batch_size * profile.gradient_accumulation
    per_step *= processes().num_processes
    steps = -(-rows // per_step) * profile.epochs
    config = SFTConfig(
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
    if profile.dtype == "float32":  # whatever the launcher's file asks for
        config.mixed_precision = "no"
    config._n_gpu = min(1, config.n_gpu)  # a process a GPU, no DataParallel
    return config


class Keeper(TrainerCallback):
    """Keeps an adapter per epoch, draws one bar, and stops at a NaN."""

    def __init__(self, folder: Path | None, progress: bool) -> None:
        self.folder = folder
        self.shown = progress and processes().is_main_process

    def on_train_begin(self, args, state, control, **_):
        self.bar = tqdm(
            total=state.max_steps,
            initial=state.global_step,
            desc="training",
            disable=not self.shown,
        )

    def on_step_end(self, args, state, control, **_):
        self.bar.update(1)

    def on_log(self, args, state, control, logs, **_):
        if "loss" not in logs:  # the summary at the end
            return
        loss = float(logs["loss"])
        self.bar.set_postfix(loss=f"{loss:.3f}")
        if not math.isfinite(loss):
            raise RunError(
                f"the loss is {loss} at step {state.global_step}: the "
                f"learning rate {args.learning_rate:g} is too high, or a "
                "logit of the student or teacher is NaN. Lower "
                "DISTILL_LEARNING_RATE and overwrite this run."
            )

    def on_epoch_end(self, args, state, control, model, processing_class, **_):
        if self.folder is not None:
            place = self.folder / f"epoch_{round(state.epoch)}"
            save_adapter(model, processing_class, place)

    def on_train_end(self, args, state, control, **_):
        self.bar.close()


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
            for model in filter(None, (self.student, teacher)):
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
            cached = (inputs["topk_ids"], inputs["topk_logprobs"])
            tensors = [tensor[mask] for tensor in (states, *cached)]
            total = self.in_chunks(self.cached_sum, *tensors)
            return total / mask.sum().clamp(min=1)
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
        return self.in_chunks(
            weighted_cross_entropy, states[asked], targets[asked], weights
        )

    def cached_sum(self, logits: Tensor, *cached: Tensor) -> Tensor:
        """The cached targets' loss, summed over positions (n, vocab)."""
        everywhere = torch.ones_like(logits[None, :, 0], dtype=torch.bool)
        mean = topk_kd_loss(
            logits[None, :, : self.vocabulary],
            *(tensor[None] for tensor in cached),
            everywhere,
            temperature=self.objective.temperature,
        )
        return mean * len(logits)

    def in_chunks(
        self, total: Callable[..., Tensor], states: Tensor, *rest: Tensor
    ) -> Tensor:
        """`total` of logits and the rest, `chunk` positions at a time.

        states: the logits, or in chunks the last hidden states.
        """
        if not self.objective.chunk:
            return total(states, *rest)
        head = output_head(self.student)

        def part(states: Tensor, *rest: Tensor) -> Tensor:
            return total(head(states), *rest)

        split = [x.split(self.objective.chunk) for x in (states, *rest)]
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
