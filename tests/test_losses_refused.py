"""What losses refuse, and what they say."""

from __future__ import annotations

import math

import pytest
import tiny
import torch
from loss_cases import INF, KINDS, SOME, best, pair

from helpers import CourseError
from helpers.losses import (
    LossError,
    check_vocabularies,
    chunked_kd_loss,
    kd_loss,
    topk_kd_loss,
)


@pytest.mark.parametrize("temperature", [0, -1.0, math.nan, math.inf])
def test_a_temperature_is_refused(temperature):
    student, teacher = pair()
    head = torch.eye(7)
    for loss, parts in (
        (kd_loss, (student, teacher)),
        (chunked_kd_loss, (student, head, teacher, head)),
        (topk_kd_loss, (student, *best(teacher, 3))),
    ):
        with pytest.raises(LossError, match="temperature"):
            loss(*parts, SOME, temperature=temperature)


@pytest.mark.parametrize(
    "options, match",
    [
        ({"kind": "hinton"}, "unknown kind 'hinton'"),
        ({"kind": "jsd", "beta": 1.5}, "beta is 1.5"),
        ({"kind": "jsd", "beta": math.nan}, "beta is nan"),
        ({"kind": "skew", "skew": 1.0}, "skew is 1.0"),
    ],
)
def test_options_are_refused(options, match):
    student, teacher = pair()
    head = torch.eye(7)
    with pytest.raises(LossError, match=match):
        kd_loss(student, teacher, SOME, **options)
    with pytest.raises(LossError, match=match):
        chunked_kd_loss(student, head, teacher, head, SOME, **options)


@pytest.mark.parametrize(
    "width, mask, match",
    [
        (5, SOME, r"5 wide .* 7.*logits\[\.\.\., :"),  # a padded vocabulary
        (7, SOME[:, :2], "mask .* does not fit"),
        (7, torch.ones(2, 3, 7), "mask .* does not fit"),
        (7, torch.where(SOME, 4, -100), "labels != -100"),
    ],
)
def test_shapes_and_masks_are_refused(width, mask, match):
    student, teacher = pair()
    with pytest.raises(LossError, match=match):
        kd_loss(student[..., :width], teacher, mask)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("bad", [math.nan, INF])
@pytest.mark.parametrize("who", [0, 1])
def test_nan_is_named(kind, bad, who):
    logits = [x.detach() for x in pair()]
    logits[who][0, 0, 3] = bad
    with pytest.raises(LossError, match="is NaN"):
        kd_loss(*logits, SOME, kind=kind)


class Swapped:
    """The teacher's tokenizer with two tokens that changed places."""

    def get_vocab(self):
        words = dict(tiny.tokenizer(tiny.TEACHER).get_vocab())
        first, second = list(words)[40:42]
        return words | {first: words[second], second: words[first]}


def test_vocabularies_of_one_tokenizer_and_one_width_agree():
    small, large = (tiny.tokenizer(n) for n in (tiny.SMALL, tiny.TEACHER))
    check_vocabularies(small, large, 896, 896)
    with pytest.raises(CourseError, match=rf"1024.*:{len(large)}\]"):
        check_vocabularies(small, large, 896, 1024)
    student = tiny.tokenizer(tiny.STUDENT)
    match = f"{len(student)} tokens, the teacher's {len(large)}"
    with pytest.raises(CourseError, match=match):
        check_vocabularies(student, large, 896, 896)
    with pytest.raises(CourseError, match="tokenizers differ"):
        check_vocabularies(large, Swapped(), 896, 896)
