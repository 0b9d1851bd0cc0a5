"""Losses from a few of the teacher's tokens."""

from __future__ import annotations

import math

import pytest
import torch
from loss_cases import (
    INF,
    LN,
    best,
    everywhere,
    gradient,
    pair,
    some,
    topk_loss,
)

from helpers.losses import (
    kd_loss,
    topk_kd_loss,
)


@pytest.mark.parametrize("temperature", [1.0, 2.0])
@pytest.mark.parametrize("tail", [True, False])
def test_topk_kd_loss_of_all_tokens_is_kd_loss(temperature, tail):
    student, teacher = pair()
    expected = kd_loss(student, teacher, some(), temperature=temperature)
    found = topk_loss(
        student, teacher, 7, some(), temperature=temperature, tail=tail
    )
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(
        gradient(found, student), gradient(expected, student)
    )


def test_topk_kd_loss_by_hand():
    teacher = torch.tensor([[[0.5, 0.3, 0.1, 0.1]]], dtype=torch.float64)
    student = torch.tensor([[[0.4, 0.1, 0.2, 0.3]]], dtype=torch.float64)
    teacher, student = teacher.log(), student.log()
    mask = torch.ones(1, 1)
    with_tail = 0.5 * LN(5 / 4) + 0.3 * LN(3) + 0.2 * LN(0.2 / 0.5)
    without = 0.625 * LN(0.625 / 0.4) + 0.375 * LN(0.375 / 0.1)
    found = topk_loss(student, teacher, 2, mask).item()
    assert found == pytest.approx(with_tail, abs=1e-12)
    found = topk_loss(student, teacher, 2, mask, tail=False).item()
    assert found == pytest.approx(without, abs=1e-12)


def test_topk_kd_loss_with_tail_only_grows_with_k_up_to_the_true_one():
    for seed in range(20):
        student, teacher = pair(seed, dtype=torch.float64)
        losses = [
            topk_loss(student, teacher, k, everywhere(student)).item()
            for k in range(1, 8)
        ]
        steps = zip(losses, losses[1:], strict=False)
        assert all(low <= high + 1e-12 for low, high in steps)
        whole = kd_loss(student, teacher, everywhere(student)).item()
        assert losses[-1] == pytest.approx(whole, abs=1e-12)
        assert 0 < losses[0] < whole


def test_topk_kd_loss_without_tail_is_biased():
    """Even a perfect student is told to change; with the tail it is not."""
    _, teacher = pair()
    student = teacher.clone().requires_grad_()
    loss = topk_loss(student, teacher, 2, some())
    assert loss.item() == pytest.approx(0, abs=1e-6)
    assert gradient(loss, student)[0].abs().max() < 1e-6
    biased = topk_loss(student, teacher, 2, some(), tail=False)
    assert biased > 0.01
    assert gradient(biased, student)[0].abs().max() > 0.01


@pytest.mark.parametrize("tail", [True, False])
def test_topk_kd_loss_gradient_agrees_with_finite_differences(tail):
    student, teacher = pair(dtype=torch.float64)
    assert torch.autograd.gradcheck(
        lambda logits: topk_loss(
            logits, teacher, 3, some(), temperature=1.7, tail=tail
        ),
        student,
    )


def test_topk_kd_loss_of_a_teacher_without_a_tail():
    """All of its mass in two tokens, in float16 with its rounding."""
    student, teacher = pair()
    teacher = teacher.masked_fill(torch.arange(7) >= 2, -INF)
    top = best(teacher, 3)  # the third one is impossible: -inf
    loss = topk_kd_loss(
        student, top.indices, top.values.half().float(), some()
    )
    whole = kd_loss(student, teacher, some())
    torch.testing.assert_close(loss, whole, atol=0.01, rtol=0)
    assert torch.isfinite(gradient(loss, student)[0]).all()


def test_topk_kd_loss_of_a_student_without_a_tail_has_no_nan():
    student, teacher = pair()
    student = student.detach().masked_fill(torch.arange(7) >= 2, -INF)
    student.requires_grad_()
    teacher = teacher.masked_fill(torch.arange(7) >= 2, -INF)
    loss = topk_loss(student, teacher, 2, some())
    assert 0 < loss < 10
    assert torch.isfinite(gradient(loss, student)[0]).all()


def test_topk_kd_loss_ignores_what_lies_at_masked_out_positions():
    student, teacher = pair()
    top = best(teacher, 3)
    expected = topk_kd_loss(student, top.indices, top.values, some())
    away = ~some()[..., None]
    ids = top.indices.masked_fill(away, -1).int()
    values = top.values.masked_fill(away, math.nan)
    values.requires_grad_()
    loss = topk_kd_loss(student, ids, values, some())
    assert loss == expected
    loss.backward()
    assert values.grad is None
