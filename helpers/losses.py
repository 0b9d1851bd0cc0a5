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
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from helpers import CourseError

KINDS = ("forward", "reverse", "jsd", "skew")
MASS_SLACK = 0.02  # what float16 log-probabilities may sum to beyond 1


class LossError(CourseError):
    """Input from which no loss can be computed; says what to change."""


def check_options(
    temperature: float,
    kind: str = "forward",
    beta: float = 0.5,
    skew: float = 0.1,
    chunk: int = 128,
) -> None:
    """The numbers and names a loss is called with."""
    if not 0 < temperature < math.inf:
        raise LossError(
            f"the temperature is {temperature}: use a number above 0, say 1.0"
        )
    if kind not in KINDS:
        raise LossError(f"unknown kind {kind!r}: use {' or '.join(KINDS)}")
    if not 0 <= beta <= 1:
        raise LossError(f"beta is {beta}: use a number from 0 to 1, say 0.5")
    if not 0 <= skew < 1:
        raise LossError(f"skew is {skew}: use 0 or more, below 1, say 0.1")
    if chunk < 1:
        raise LossError(f"chunk is {chunk}: use 1 position or more, say 128")


def check_pair(student: Tensor, teacher: Tensor, mask: Tensor) -> None:
    """Student's and teacher's logits, or hidden states, of one batch."""
    check_mask(student, mask)
    check_devices(student=student, teacher=teacher, mask=mask)
    if student.shape[:-1] != teacher.shape[:-1]:
        raise LossError(
            f"the student's {tuple(student.shape)} and the teacher's "
            f"{tuple(teacher.shape)} differ in batch or tokens: give both "
            "models the same rows"
        )


def check_mask(student: Tensor, mask: Tensor) -> None:
    """One 0 or 1 for each position."""
    if mask.shape != student.shape[:-1]:
        raise LossError(
            f"the mask {tuple(mask.shape)} does not fit logits or hidden "
            f"states {tuple(student.shape)}: it needs one value per position, "
            "as shift_for_next_token gives it"
        )
    if mask.dtype != torch.bool and not ((mask == 0) | (mask == 1)).all():
        raise LossError(
            "the mask holds more than 0 and 1: from labels, pass "
            "labels != -100"
        )


def check_labels(logits: Tensor, labels: Tensor) -> None:
    """Labels of the same rows, neither of the two shifted yet."""
    if labels.shape != logits.shape[:-1]:
        raise LossError(
            f"labels {tuple(labels.shape)} do not fit logits "
            f"{tuple(logits.shape)}: pass both unshifted, from one batch"
        )


def check_devices(**tensors: Tensor) -> None:
    """All tensors in one place; they are named in the error."""
    places = {name: str(tensor.device) for name, tensor in tensors.items()}
    if len(set(places.values())) > 1:
        raise LossError(
            f"the tensors are on several devices, {places}: move them to the "
            "student's with .to(device)"
        )


def check_widths(student_logits: Tensor, teacher_logits: Tensor) -> None:
    """Both models' logits over as many tokens."""
    widths = student_logits.shape[-1], teacher_logits.shape[-1]
    if widths[0] != widths[1]:
        raise LossError(different_widths(*widths, "len(tokenizer)"))


def different_widths(student: int, teacher: int, size: int | str) -> str:
    """The sentence for a padded vocabulary, and where to cut it."""
    return (
        f"the student's logits are {student} wide and the teacher's "
        f"{teacher}: with one tokenizer, this is padding, so cut both with "
        f"logits[..., :{size}]"
    )


def check_sparse(
    student_logits: Tensor, ids: Tensor, values: Tensor, mask: Tensor
) -> None:
    """A few of the teacher's tokens for each of the student's positions."""
    check_mask(student_logits, mask)
    check_devices(student=student_logits, ids=ids, values=values, mask=mask)
    if ids.shape != values.shape or ids.shape[:-1] != mask.shape:
        raise LossError(
            f"ids {tuple(ids.shape)} and their values {tuple(values.shape)} "
            f"do not fit student logits {tuple(student_logits.shape)}: both "
            "must be (batch, tokens, k)"
        )


def check_ids(ids: Tensor, vocabulary: int) -> Tensor:
    """Token ids that the student knows, as int64."""
    ids = ids.long()
    if ids.numel() and not (0 <= ids.min() and ids.max() < vocabulary):
        raise LossError(
            f"the token ids run from {ids.min()} to {ids.max()}, but the "
            f"student knows 0 to {vocabulary - 1}: use a teacher, or a "
            "cache, with the student's tokenizer"
        )
    return ids


def check_k(k: int, vocabulary: int) -> None:
    """No more tokens kept than there are."""
    if not 1 <= k <= vocabulary:
        raise LossError(
            f"k is {k}, but the vocabulary has {vocabulary} tokens: use 1 to "
            f"{vocabulary}"
        )


def check_mass(covered: Tensor) -> None:
    """Logarithms of what the teacher's top k sum to: no more than 1."""
    if (covered > MASS_SLACK).any():
        raise LossError(
            "the teacher's top-k probabilities sum to more than 1: pass "
            "log-probabilities at this temperature, not logits"
        )


def check_vocabularies(
    student_tokenizer: Any,
    teacher_tokenizer: Any,
    student_vocab: int,
    teacher_vocab: int,
) -> None:
    """Logits can be compared only where id n is the same token for both.

    `student_vocab` and `teacher_vocab` are the widths of the logits. Raises
    LossError when the tokenizers differ, and when the widths alone do: a
    vocabulary is often padded to a round number.
    """
    student = student_tokenizer.get_vocab()
    teacher = teacher_tokenizer.get_vocab()
    if student != teacher:
        shared = len(student.items() & teacher.items())
        raise LossError(
            f"the tokenizers differ: the student's has {len(student)} "
            f"tokens, the teacher's {len(teacher)}, and {shared} have the "
            "same id; choose a pair with one tokenizer, or train on the "
            "teacher's text"
        )
    if student_vocab != teacher_vocab:
        size = min(len(student), student_vocab, teacher_vocab)
        raise LossError(different_widths(student_vocab, teacher_vocab, size))


LOG_ZERO = -1e30  # stands for log 0: finite, so that 0 * log 0 is 0, not NaN

Head = Callable[[Tensor], Tensor] | Tensor


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
    check_pair(student_logits, teacher_logits, mask)
    check_widths(student_logits, teacher_logits)
    check_options(temperature, kind, beta, skew)
    mask = mask.bool()
    per_position = divergence(
        student_logits[mask],
        teacher_logits.detach()[mask],
        temperature=temperature,
        kind=kind,
        beta=beta,
        skew=skew,
    )
    return scaled_mean(per_position.sum(), mask, temperature)


def log_probabilities(logits: Tensor, temperature: float = 1.0) -> Tensor:
    """log softmax(logits / temperature), in float32 at least, never -inf."""
    wide = torch.promote_types(logits.dtype, torch.float32)
    softened = logits.to(wide) / temperature
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
    temperature: float,
    kind: str,
    beta: float,
    skew: float,
) -> Tensor:
    """Logits (positions, vocab) to one value per position."""
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


def scaled_mean(total: Tensor, mask: Tensor, temperature: float) -> Tensor:
    """The mean over the mask times T**2; raises LossError for NaN."""
    loss = total / mask.sum().clamp(min=1) * temperature**2
    if torch.isnan(loss.detach()):
        raise LossError(
            "the loss is NaN, so a logit is NaN or +inf, or all of a "
            "position's are -inf: look for the first step with a NaN, then "
            "lower the learning rate or load the model in bfloat16, not "
            "float16"
        )
    return loss


def entropy(logits: Tensor, *, temperature: float = 1.0) -> Tensor:
    """Entropy in nats per position: (..., vocab) to (...)."""
    logs = log_probabilities(logits, temperature)
    return -(logs.exp() * logs).sum(dim=-1)


def chunked_kd_loss(
    student_hidden: Tensor,
    student_head: Head,
    teacher_hidden: Tensor,
    teacher_head: Head,
    mask: Tensor,
    *,
    temperature: float = 1.0,
    kind: str = "forward",
    beta: float = 0.5,
    skew: float = 0.1,
    chunk: int = 128,
) -> Tensor:
    """`kd_loss` without ever holding the logits of a whole batch.

    Takes the last hidden states (batch, tokens, width) and the heads that
    turn them into logits: a module such as `model.lm_head`, any function, or
    a weight (vocab, width). Only masked-in positions are computed, `chunk`
    at a time; the backward pass makes each chunk's logits again (gradient
    checkpointing, arXiv:1604.06174). So memory falls with the number of
    chunks, and the head runs twice. Gradients reach `student_hidden` and the
    student's head. Raises LossError as `kd_loss` does.
    """
    check_pair(student_hidden, teacher_hidden, mask)
    check_options(temperature, kind, beta, skew, chunk)
    compare = partial(
        divergence, temperature=temperature, kind=kind, beta=beta, skew=skew
    )
    to_student, to_teacher = map(as_function, (student_head, teacher_head))

    def chunk_sum(student_part: Tensor, teacher_part: Tensor) -> Tensor:
        with torch.no_grad():
            teacher_logits = to_teacher(teacher_part)
        student_logits = to_student(student_part)
        check_widths(student_logits, teacher_logits)
        return compare(student_logits, teacher_logits).sum()

    mask = mask.bool()
    parts = zip(
        student_hidden[mask].split(chunk),  # an empty mask: one empty part
        teacher_hidden.detach()[mask].split(chunk),
        strict=True,
    )
    sums = [checkpoint(chunk_sum, *p, use_reentrant=False) for p in parts]
    return scaled_mean(torch.stack(sums).sum(), mask, temperature)


def as_function(head: Head) -> Callable[[Tensor], Tensor]:
    """A head as a function of hidden states; a weight is (vocab, width)."""
    if isinstance(head, Tensor):
        return partial(functional.linear, weight=head)
    return head


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

    Raises LossError for anything that does not fit together, and for NaN.
    """
    check_sparse(student_logits, topk_ids, topk_logprobs, mask)
    check_k(topk_ids.shape[-1], student_logits.shape[-1])
    check_options(temperature)
    mask = mask.bool()
    student = log_probabilities(student_logits[mask], temperature)
    ids = check_ids(topk_ids[mask], student.shape[-1])  # (positions, k)
    teacher = topk_logprobs.detach()[mask].to(student.dtype)
    covered = teacher.logsumexp(dim=-1, keepdim=True)
    check_mass(covered)
    student_top = student.gather(-1, ids)
    if not tail:
        teacher = teacher - covered
    elif ids.shape[-1] < student.shape[-1]:
        others = student.scatter(-1, ids, LOG_ZERO).logsumexp(-1, True)
        student_top = torch.cat([student_top, others], dim=-1)
        teacher = torch.cat([teacher, log1mexp(covered)], dim=-1)
    total = kl(teacher.clamp(min=LOG_ZERO), student_top).sum()
    return scaled_mean(total, mask, temperature)


def log1mexp(logs: Tensor) -> Tensor:
    """log(1 - exp(logs)), the logarithm of what is left of a mass of 1."""
    return (-torch.expm1(logs)).clamp(min=0).log()


def sampled_kd_loss(
    student_logits: Tensor,
    sample_ids: Tensor,
    sample_weights: Tensor,
    mask: Tensor,
    *,
    temperature: float = 1.0,
) -> Tensor:
    """Cross-entropy to tokens drawn from the teacher, a scalar.

    `sample_ids` and `sample_weights` are (batch, tokens, n): tokens drawn
    from p at this temperature, and count / draws for each; an unused place
    has weight 0. The mean over draws is the cross-entropy of p and q, so
    loss and gradient are unbiased; it lies above `kd_loss` by the teacher's
    entropy times T**2, which no student can change. Source: Sparse Logit
    Sampling (arXiv:2503.16870). Raises LossError as `topk_kd_loss` does.
    """
    check_sparse(student_logits, sample_ids, sample_weights, mask)
    check_options(temperature)
    mask = mask.bool()
    student = log_probabilities(student_logits[mask], temperature)
    ids = check_ids(sample_ids[mask], student.shape[-1])
    weights = sample_weights.detach()[mask].to(student.dtype)
    total = -(weights * student.gather(-1, ids)).sum()
    return scaled_mean(total, mask, temperature)


def shift_for_next_token(
    logits: Tensor, labels: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Line up each prediction with the token it predicts.

    Position t predicts token t + 1, so the first answer token is predicted
    at the prompt's last position. From (batch, tokens, width), logits or
    hidden states, and labels (batch, tokens) to logits, labels and mask that
    are one token shorter; the mask is true where a label is not -100.
    """
    check_labels(logits, labels)
    return logits[:, :-1], labels[:, 1:], labels[:, 1:] != -100
