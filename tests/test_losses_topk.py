"""Losses from a few of the teacher's tokens."""

import math
from math import log

import pytest
import torch
from loss_cases import ALL, INF, SOME, best, by_hand, gradient, pair, topk_loss

from helpers.losses import LossError, kd_loss, topk_kd_loss

both_tails = pytest.mark.parametrize("tail", [True, False])


@both_tails
@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_all_tokens_give_kd_loss(temperature, tail):
    student, teacher = pair()
    options = {"temperature": temperature}
    expected = kd_loss(student, teacher, SOME, **options)
    loss = topk_loss(student, teacher, 7, SOME, tail=tail, **options)
    torch.testing.assert_close(loss, expected, atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(
        gradient(loss, student), gradient(expected, student)
    )


@pytest.mark.parametrize(
    "tail, expected",
    [
        (True, 0.5 * log(5 / 4) + 0.3 * log(3) + 0.2 * log(0.2 / 0.5)),
        (False, 0.625 * log(0.625 / 0.4) + 0.375 * log(0.375 / 0.1)),
    ],
)
def test_two_of_four_tokens_by_hand(tail, expected):
    teacher, student = by_hand(0.5, 0.3, 0.1, 0.1), by_hand(0.4, 0.1, 0.2, 0.3)
    loss = topk_loss(student, teacher, 2, torch.ones(1, 1), tail=tail)
    assert loss.item() == pytest.approx(expected, abs=1e-12)


def test_loss_with_tail_only_grows_with_k_up_to_the_true_one():
    student, teacher = pair(dtype=torch.float64)
    losses = [topk_loss(student, teacher, k, ALL).item() for k in range(1, 8)]
    steps = zip(losses, losses[1:], strict=False)
    assert all(low <= high + 1e-12 for low, high in steps)
    assert 0 < losses[0] < kd_loss(student, teacher, ALL).item()


def test_loss_without_tail_is_biased():
    """Even a perfect student is told to change; with the tail it is not."""
    _, teacher = pair()
    student = teacher.clone().requires_grad_()
    loss = topk_loss(student, teacher, 2, SOME)
    assert loss.item() == pytest.approx(0, abs=1e-6)
    assert gradient(loss, student)[0].abs().max() < 1e-6
    biased = topk_loss(student, teacher, 2, SOME, tail=False)
    assert biased > 0.01
    assert gradient(biased, student)[0].abs().max() > 0.01


@both_tails
def test_gradient_agrees_with_finite_differences(tail):
    student, teacher = pair(dtype=torch.float64)
    options = {"temperature": 1.7, "tail": tail}
    assert torch.autograd.gradcheck(
        lambda logits: topk_loss(logits, teacher, 3, SOME, **options), student
    )


def test_nobody_needs_a_tail():
    """All of the mass in two tokens, also with float16's rounding."""
    student, teacher = pair()
    short = teacher.masked_fill(torch.arange(7) >= 2, -INF)
    ids, values = best(short, 3)  # the third one is impossible: -inf
    loss = topk_kd_loss(student, ids, values.half().float(), SOME)
    whole = kd_loss(student, short, SOME)
    torch.testing.assert_close(loss, whole, atol=0.01, rtol=0)
    assert torch.isfinite(gradient(loss, student)[0]).all()
    student = student.detach().masked_fill(torch.arange(7) >= 2, -INF)
    loss = topk_loss(student.requires_grad_(), short, 2, SOME)
    assert 0 < loss < 10
    assert torch.isfinite(gradient(loss, student)[0]).all()


def test_masked_out_positions_are_inert_and_the_teacher_gets_no_gradient():
    student, teacher = pair()
    ids, values = best(teacher, 3)
    expected = topk_kd_loss(student, ids, values, SOME)
    away = ~SOME[..., None]
    values = values.masked_fill(away, math.nan).requires_grad_()
    loss = topk_kd_loss(student, ids.masked_fill(away, -1).int(), values, SOME)
    assert loss == expected
    loss.backward()
    assert values.grad is None
    with pytest.raises(LossError, match="sum to more than 1"):
        topk_kd_loss(student, *teacher.topk(3)[::-1], SOME)  # logits
