"""Every loss of logit distillation, as plain functions of tensors.

Write p for the teacher's distribution over the next token and q for the
student's, both softened by the temperature T:

    p = softmax(teacher_logits / T)        q = softmax(student_logits / T)

Every loss compares p with q at each position, takes the mean over the
positions where `mask` is true, and multiplies it by T * T: softening shrinks
the gradient by about 1 / T**2, so this keeps it as large as at T = 1
(Hinton et al., arXiv:1503.02531, section 2). Losses are in nats.

Gradients reach the student alone. Half-precision logits are computed in
float32, float64 stays float64. Nothing is shifted here except by
`shift_for_next_token`: call it first, for both models.

A logit of -inf is a probability of 0, and 0 * log 0 counts as 0. A token that
one model excludes and the other needs makes the loss about 1e30, not NaN.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any, TypedDict, Unpack

import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from helpers.chat import check_vocabularies as check_vocabularies  # here too
from helpers.features import LossError, checked_mask, finite, widen
from helpers.features import hidden_state_loss as hidden_state_loss

KINDS = ("forward", "reverse", "jsd", "skew")
LOG_ZERO = -1e30  # stands for log 0: finite, so that 0 * log 0 is 0, not NaN
MASS_SLACK = 0.02  # what float16 log-probabilities may sum to beyond 1
OTHER_SCALES = ("logits_scaling", "lm_head_multiplier", "output_multiplier")

Head = Callable[[Tensor], Tensor] | Tensor


class Kind(TypedDict, total=False):
    """Which divergence, as `kd_loss` describes it."""

    kind: str
    beta: float
    skew: float


def log_probabilities(logits: Tensor, temperature: float = 1.0) -> Tensor:
    """log softmax(logits / temperature), in float32 at least, never -inf."""
    softened = widen(logits) / temperature
    return functional.log_softmax(softened, dim=-1).clamp(min=LOG_ZERO)


def kl(first: Tensor, second: Tensor) -> Tensor:
    """KL(first || second) of log-probabilities, summed over the last axis."""
    return (first.exp() * (first - second)).sum(dim=-1)


def mixture(first: Tensor, second: Tensor, share: float) -> Tensor:
    """log(share * first + (1 - share) * second), all in logarithms."""
    return torch.logaddexp(
        first + math.log(share), second + math.log1p(-share)
    )


def divergence(
    student_logits: Tensor,
    teacher_logits: Tensor,
    *,
    temperature: float = 1.0,
    kind: str = "forward",
    beta: float = 0.5,
    skew: float = 0.1,
) -> Tensor:
    """Logits (positions, vocab) to one value per position; see `kd_loss`."""
    check_options(temperature, kind, beta, skew)
    check_widths(student_logits, teacher_logits)
    student = log_probabilities(student_logits, temperature)
    teacher = log_probabilities(teacher_logits, temperature)
    if kind == "skew" and skew > 0:
        return kl(teacher, mixture(teacher, student, skew))
    if kind == "jsd" and 0 < beta < 1:
        middle = mixture(teacher, student, beta)
        return beta * kl(teacher, middle) + (1 - beta) * kl(student, middle)
    if kind == "reverse" or (kind == "jsd" and beta == 1):
        return kl(student, teacher)
    return kl(teacher, student)


def entropy(logits: Tensor, *, temperature: float = 1.0) -> Tensor:
    """Entropy in nats per position: (..., vocab) to (...)."""
    logs = log_probabilities(logits, temperature)
    return -(logs.exp() * logs).sum(dim=-1)


def scaled_mean(total: Tensor, mask: Tensor, temperature: float) -> Tensor:
    """The mean over the mask times T**2; raises LossError for NaN."""
    return finite(total / mask.sum().clamp(min=1) * temperature**2)


def shift_for_next_token(
    logits: Tensor, labels: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Line up each prediction with the token it predicts.

    Position t predicts token t + 1, so the first answer token is predicted
    at the prompt's last position. From (batch, tokens, width), logits or
    hidden states, and labels (batch, tokens) to logits, labels and mask that
    are one token shorter; the mask is true where a label is not -100.
    """
    return logits[:, :-1], labels[:, 1:], labels[:, 1:] != -100


def kd_loss(
    student_logits: Tensor,
    teacher_logits: Tensor,
    mask: Tensor,
    *,
    temperature: float = 1.0,
    kind: str = "forward",
    beta: float = 0.5,
    skew: float = 0.1,
) -> Tensor:
    """The divergence between teacher and student, a scalar.

    Logits are (batch, tokens, vocab); `mask` is (batch, tokens), boolean or
    0/1. With an empty mask the loss is 0. `kind` is one of
    - forward: KL(p || q), which covers everything that the teacher may say;
    - reverse: KL(q || p), which settles for what the teacher surely says;
    - jsd: beta * KL(p || m) + (1 - beta) * KL(q || m) with the mixture
      m = beta * p + (1 - beta) * q, the generalized Jensen-Shannon
      divergence of GKD (arXiv:2306.13649, equation 1). It vanishes towards
      beta 0 and 1; exactly there it means forward and reverse, as in TRL;
    - skew: KL(p || skew * p + (1 - skew) * q) of DistiLLM
      (arXiv:2402.03898), at most log(1 / skew); skew 0 is forward.

    Raises LossError for anything that does not fit together, and for NaN.
    """
    mask = checked_mask(mask, student_logits)
    per_position = divergence(
        student_logits[mask],
        teacher_logits.detach()[mask],
        temperature=temperature,
        kind=kind,
        beta=beta,
        skew=skew,
    )
    return scaled_mean(per_position.sum(), mask, temperature)


def topk_kd_loss(
    student_logits: Tensor,
    topk_ids: Tensor,
    topk_logprobs: Tensor,
    mask: Tensor,
    *,
    temperature: float = 1.0,
    tail: bool = True,
) -> Tensor:
    """Forward KL from the teacher's k likeliest tokens alone, a scalar.

    `topk_ids` and `topk_logprobs` are (batch, tokens, k): distinct tokens
    and the teacher's log-probabilities at this same temperature, not
    renormalized. With `tail` all other tokens are one more outcome, with the
    teacher's and the student's remaining mass: merging outcomes can only
    lower a KL, so the loss is a lower bound of `kd_loss`, and equal to it at
    k = vocab. Without `tail` the teacher is renormalized over its top k,
    which is biased: the student learns that nothing else is ever said.
    Raises LossError as `kd_loss` does.
    """
    mask = checked_mask(mask, student_logits)
    check_options(temperature)
    student = log_probabilities(student_logits[mask], temperature)
    ids, vocabulary = topk_ids[mask].long(), student.shape[-1]
    teacher = topk_logprobs.detach()[mask].to(student.dtype)
    top_mass = teacher.logsumexp(dim=-1, keepdim=True)  # its logarithm
    if (top_mass > MASS_SLACK).any():
        raise LossError(
            "the teacher's top-k probabilities sum to more than 1: pass "
            "log-probabilities at this temperature, not logits"
        )
    student_top = student.gather(-1, ids)
    if not tail:
        teacher = teacher - top_mass
    elif ids.shape[-1] < vocabulary:
        student_rest = student.scatter(-1, ids, LOG_ZERO).logsumexp(-1, True)
        teacher_rest = (-torch.expm1(top_mass)).clamp(min=0).log()
        student_top = torch.cat([student_top, student_rest], dim=-1)
        teacher = torch.cat([teacher, teacher_rest], dim=-1)
    total = kl(teacher.clamp(min=LOG_ZERO), student_top).sum()
    return scaled_mean(total, mask, temperature)


def chunked_kd_loss(
    student_hidden: Tensor,
    student_head: Head,
    teacher_hidden: Tensor,
    teacher_head: Head,
    mask: Tensor,
    *,
    temperature: float = 1.0,
    chunk: int = 128,
    **kind: Unpack[Kind],
) -> Tensor:
    """`kd_loss` without ever holding the logits of a whole batch.

    Takes the last hidden states (batch, tokens, width) and the heads that
    turn them into logits: any function, of a model its `output_head`, or a
    bare weight (vocab, width). Only masked-in positions are computed,
    `chunk` at a time; the backward pass makes each chunk's logits again
    (gradient checkpointing, arXiv:1604.06174). So memory falls with the
    number of chunks, and the head runs twice. Gradients reach
    `student_hidden` and the student's head. The rest is as in `kd_loss`.
    """
    mask = checked_mask(mask, student_hidden)
    compare = partial(divergence, temperature=temperature, **kind)

    def logits_of(head: Head, hidden: Tensor) -> Tensor:
        return hidden @ head.T if torch.is_tensor(head) else head(hidden)

    def chunk_sum(student_part: Tensor, teacher_part: Tensor) -> Tensor:
        with torch.no_grad():
            teacher_logits = logits_of(teacher_head, teacher_part)
        student_logits = logits_of(student_head, student_part)
        return compare(student_logits, teacher_logits).sum()

    parts = zip(
        student_hidden[mask].split(chunk),  # an empty mask: one empty part
        teacher_hidden.detach()[mask].split(chunk),
        strict=True,
    )
    sums = [checkpoint(chunk_sum, *p, use_reentrant=False) for p in parts]
    return scaled_mean(torch.stack(sums).sum(), mask, temperature)


def output_head(model: Any, vocabulary: int | None = None) -> Head:
    """What a model does to its last hidden states to get logits.

    Its output embedding with the bias, then what the configuration adds:
    Cohere's `logit_scale` and Gemma 2's `final_logit_softcapping`.
    `vocabulary`: columns that mean a token; the padding behind them is cut
    off. Raises LossError where the configuration scales in another way.
    """
    head = model.get_output_embeddings()
    config = model.config.get_text_config()
    others = [n for n in OTHER_SCALES if (getattr(config, n, 1) or 1) != 1]
    if others:
        raise LossError(f"{others} scale its logits too: use kd_loss on them")
    scale = getattr(config, "logit_scale", None)
    cap = getattr(config, "final_logit_softcapping", None)

    def to_logits(hidden: Tensor) -> Tensor:
        logits = head(hidden.to(head.weight.dtype))[..., :vocabulary]
        logits = logits if scale is None else logits * scale
        return logits if cap is None else cap * torch.tanh(logits / cap)

    return to_logits


def check_options(
    temperature: float,
    kind: str = "forward",
    beta: float = 0.5,
    skew: float = 0.1,
) -> None:
    """Raises LossError for a name or a number that no loss understands."""
    if kind not in KINDS:
        raise LossError(f"unknown kind {kind!r}: use {' or '.join(KINDS)}")
    if not 0 < temperature < math.inf:
        raise LossError(f"temperature is {temperature}: use one above 0")
    if not 0 <= beta <= 1:
        raise LossError(f"beta is {beta}: use a number from 0 to 1")
    if not 0 <= skew < 1:
        raise LossError(f"skew is {skew}: use a number from 0, below 1")


def check_widths(student_logits: Tensor, teacher_logits: Tensor) -> None:
    """Raises LossError unless both models' logits are over as many tokens."""
    student, teacher = student_logits.shape[-1], teacher_logits.shape[-1]
    if student != teacher:
        raise LossError(
            f"the student's logits are {student} wide and the teacher's "
            f"{teacher}: with one tokenizer, this is padding, so cut both "
            "with logits[..., :len(tokenizer)]"
        )
