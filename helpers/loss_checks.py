"""What must hold before two models can be compared: helpers.losses asks.

Every check raises LossError, one sentence with what is wrong and the cure.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

KINDS = ("forward", "reverse", "jsd", "skew")
MASS_SLACK = 0.02  # what float16 log-probabilities may sum to beyond 1


class LossError(ValueError):
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
