"""Every loss of feature distillation, as plain functions of tensors.

A hidden state says where in its own space a model stands before it predicts
a token. Two models share no such space: neither its width nor its axes nor
its scale. Each loss here deals with that in its own way, see
`hidden_state_loss`.

Gradients reach the student and the projector, never the teacher. Half
precision is computed in float32, float64 stays float64. Nothing is shifted
here: helpers.losses.shift_for_next_token lines states up with the trained
tokens exactly as it does logits.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from helpers.loss_checks import LossError, check_pair
from helpers.losses import LOG_ZERO, kl, log_probabilities

FEATURE_KINDS = ("mse", "cosine", "relation")
RELATION_TEMPERATURE = 0.1  # cosines lie in [-1, 1]: too flat as logits
SMALL = 1e-12

Projector = Callable[[Tensor], Tensor]


def hidden_state_loss(
    student_hidden: Tensor,
    teacher_hidden: Tensor,
    mask: Tensor,
    *,
    projector: Projector | None = None,
    kind: str = "mse",
) -> Tensor:
    """How far the student's states are from the teacher's, a scalar.

    States are (batch, tokens, width), each with its own width; `mask` is
    (batch, tokens), boolean or 0/1. With an empty mask the loss is 0.
    `projector` maps the student's width to the teacher's. `kind` is one of
    - mse: the squared error over the teacher's mean square (FitNets,
      arXiv:1412.6550, made free of scale): 1 means no better than zeros;
    - cosine: 1 - cosine of the angle, blind to length (DistilBERT,
      arXiv:1910.01108);
    - relation: which positions of a row resemble each other. Needs no
      projector: only similarities are compared (`relation_loss`).

    Raises LossError for anything that does not fit together, and for NaN.
    """
    check_pair(student_hidden, teacher_hidden, mask)
    if kind not in FEATURE_KINDS:
        raise LossError(
            f"unknown kind {kind!r}: use {' or '.join(FEATURE_KINDS)}"
        )
    mask = mask.bool()
    if kind == "relation":
        return relation_loss(student_hidden, teacher_hidden, mask)
    student = student_hidden[mask]
    student = widened(student if projector is None else projector(student))
    teacher = widened(teacher_hidden.detach()[mask])
    if student.shape != teacher.shape:
        raise LossError(
            f"the student's states are {student.shape[-1]} wide and the "
            f"teacher's {teacher.shape[-1]}: give a projector between the "
            'two, or use kind="relation", which needs none'
        )
    if kind == "mse":
        size = teacher.square().sum().clamp(min=SMALL)
        return finite((student - teacher).square().sum() / size)
    angles = 1 - functional.cosine_similarity(student, teacher, dim=-1)
    return finite(angles.sum() / mask.sum().clamp(min=1))


def relation_loss(
    student_states: Tensor, teacher_states: Tensor, mask: Tensor
) -> Tensor:
    """KL between the two models' similarities of positions, a scalar.

    Every masked-in position asks: which others of this row am I like? The
    answer is a softmax over cosines at RELATION_TEMPERATURE, without the
    position itself. Neither width, rotation nor scale of a space changes
    it. After MiniLM (arXiv:2002.10957, section 3.2), which compares scaled
    dot products of values: pass values to get its value relation.
    """
    pairs = mask[:, :, None] & mask[:, None, :]
    itself = torch.eye(mask.shape[1], dtype=torch.bool, device=mask.device)
    pairs = pairs & ~itself
    asked = pairs.any(dim=-1)  # a row with one position has no relations
    student = relations(student_states, pairs)[asked]
    teacher = relations(teacher_states.detach(), pairs)[asked]
    return finite(kl(teacher, student).sum() / asked.sum().clamp(min=1))


def relations(states: Tensor, pairs: Tensor) -> Tensor:
    """(batch, tokens, width) to log-probabilities (batch, tokens, tokens)."""
    unit = functional.normalize(widened(states), dim=-1)
    cosines = unit @ unit.transpose(1, 2)
    cosines = cosines.masked_fill(~pairs, LOG_ZERO)
    return log_probabilities(cosines, RELATION_TEMPERATURE)


def attention_loss(
    student_attention: Tensor, teacher_attention: Tensor, mask: Tensor
) -> Tensor:
    """KL between where teacher and student look, a scalar.

    Attention is (batch, heads, tokens, tokens), as `output_attentions`
    gives it with eager attention; the mean over heads makes any two numbers
    of heads comparable (MiniLM, arXiv:2002.10957, section 3.1, asks for
    equal ones). `mask` is (batch, tokens): positions that look.
    """
    for attention in (student_attention, teacher_attention):
        if attention.ndim != 4:
            raise LossError(
                f"attention of shape {tuple(attention.shape)}: pass (batch, "
                "heads, tokens, tokens), which needs the model loaded with "
                'attn_implementation="eager"'
            )
    looks = [
        widened(attention.mean(dim=1)).clamp(min=SMALL).log()
        for attention in (student_attention, teacher_attention.detach())
    ]
    check_pair(looks[0], looks[1], mask)
    mask = mask.bool()
    student, teacher = (look[mask] for look in looks)
    return finite(kl(teacher, student).sum() / mask.sum().clamp(min=1))


def widened(states: Tensor) -> Tensor:
    """At least float32."""
    return states.to(torch.promote_types(states.dtype, torch.float32))


def finite(loss: Tensor) -> Tensor:
    """The loss itself; LossError when it is NaN."""
    if torch.isnan(loss.detach()):
        raise LossError(
            "the feature loss is NaN, so a hidden state is NaN or infinite: "
            "look for the first step with one, then lower the learning rate "
            "or the weight, or load the model in bfloat16, not float16"
        )
    return loss
