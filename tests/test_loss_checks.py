"""What losses refuse, and what they say."""

from __future__ import annotations

import math

import pytest
import tiny
import torch
from loss_cases import (
    INF,
    KINDS,
    best,
    hidden,
    pair,
    some,
)

from helpers import CourseError
from helpers.losses import (
    LossError,
    check_vocabularies,
    chunked_kd_loss,
    hidden_state_loss,
    kd_loss,
    topk_kd_loss,
)


@pytest.mark.parametrize("temperature", [0, -1.0, math.nan, math.inf])
def test_losses_refuse_a_temperature(temperature):
    student, teacher = pair()
    head = torch.eye(7)
    for call in (
        lambda t: kd_loss(student, teacher, some(), temperature=t),
        lambda t: chunked_kd_loss(
            student, head, teacher, head, some(), temperature=t
        ),
        lambda t: topk_kd_loss(
            student, *best(teacher, 3)[::-1], some(), temperature=t
        ),
    ):
        with pytest.raises(LossError, match="temperature"):
            call(temperature)


@pytest.mark.parametrize(
    "options, match",
    [
        ({"kind": "hinton"}, "unknown kind 'hinton'"),
        ({"kind": "jsd", "beta": 1.5}, "beta is 1.5"),
        ({"kind": "jsd", "beta": math.nan}, "beta is nan"),
        ({"kind": "skew", "skew": 1.0}, "skew is 1.0"),
    ],
)
def test_kd_loss_refuses_options(options, match):
    student, teacher = pair()
    with pytest.raises(LossError, match=match):
        kd_loss(student, teacher, some(), **options)
    head = torch.eye(7)
    with pytest.raises(LossError, match=match):
        chunked_kd_loss(student, head, teacher, head, some(), **options)


def test_chunked_kd_loss_refuses_heads_that_differ():
    ours, head, theirs, their_head = hidden(torch.float32)
    with pytest.raises(LossError, match="are 9 wide and the teacher's 11"):
        chunked_kd_loss(ours, head.weight[:9], theirs, their_head, some())


def test_kd_loss_refuses_padded_vocabularies_with_the_cure():
    student, teacher = pair()
    with pytest.raises(LossError, match=r"5 wide .* 7.*logits\[\.\.\., :"):
        kd_loss(student[..., :5], teacher, some())


def test_losses_refuse_a_mask_of_another_shape():
    student, teacher = pair()
    for mask in (some()[:, :2], torch.ones(2, 3, 7)):
        with pytest.raises(LossError, match="mask .* does not fit"):
            kd_loss(student, teacher, mask)
        with pytest.raises(LossError, match="mask .* does not fit"):
            hidden_state_loss(student, teacher, mask)


def test_kd_loss_refuses_labels_for_a_mask():
    student, teacher = pair()
    labels = torch.tensor([[-100, 4, 5], [-100, 4, 1]])
    with pytest.raises(LossError, match="labels != -100"):
        kd_loss(student, teacher, labels)


@pytest.mark.parametrize("bad", [math.nan, INF])
def test_losses_say_that_a_logit_is_nan(bad):
    for who in ("student", "teacher"):
        student, teacher = pair()
        logits = {"student": student.detach(), "teacher": teacher}
        logits[who][0, 0, 3] = bad
        for kind in KINDS:
            with pytest.raises(LossError, match="is NaN"):
                kd_loss(
                    logits["student"], logits["teacher"], some(), kind=kind
                )


def test_topk_kd_loss_refuses_ids_of_another_vocabulary():
    student, teacher = pair()
    top = best(teacher, 2)
    ids = torch.full_like(top.indices, 6)
    with pytest.raises(LossError, match="from 6 to 6"):
        topk_kd_loss(student[..., :5], ids, top.values, some())


def test_topk_kd_loss_refuses_logits_for_log_probabilities():
    student, teacher = pair()
    top = teacher.topk(3)
    with pytest.raises(LossError, match="sum to more than 1"):
        topk_kd_loss(student, top.indices, top.values, some())


def test_check_vocabularies_accepts_one_tokenizer_and_one_width():
    tokenizer = tiny.tokenizer(tiny.TEACHER)
    small = tiny.tokenizer("mini-qwen3-small")
    check_vocabularies(small, tokenizer, 896, 896)


def test_check_vocabularies_names_padded_widths_and_where_to_cut():
    tokenizer = tiny.tokenizer(tiny.TEACHER)
    match = rf"896 wide and the teacher's 1024.*:{len(tokenizer)}\]"
    with pytest.raises(CourseError, match=match):
        check_vocabularies(tokenizer, tokenizer, 896, 1024)


def test_check_vocabularies_names_the_sizes_of_two_tokenizers():
    student = tiny.tokenizer(tiny.STUDENT)
    teacher = tiny.tokenizer(tiny.TEACHER)
    match = f"{len(student)} tokens, the teacher's {len(teacher)}"
    with pytest.raises(CourseError, match=match):
        check_vocabularies(student, teacher, 896, 896)


def test_check_vocabularies_sees_two_tokens_that_changed_places():
    class Swapped:
        def get_vocab(self):
            vocabulary = dict(tiny.tokenizer(tiny.TEACHER).get_vocab())
            first, second = list(vocabulary)[40:42]
            vocabulary[first], vocabulary[second] = (
                vocabulary[second],
                vocabulary[first],
            )
            return vocabulary

    with pytest.raises(CourseError, match="tokenizers differ"):
        check_vocabularies(tiny.tokenizer(tiny.TEACHER), Swapped(), 896, 896)
