"""helpers.features: values by hand, invariances, gradients, refusals."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional

from helpers.features import (
    FEATURE_KINDS,
    RELATION_TEMPERATURE,
    hidden_state_loss,
    relation_loss,
)
from helpers.losses import LossError, shift_for_next_token

MASK = torch.tensor([[0, 1, 1, 1, 1], [1, 1, 1, 0, 0]]).bool()


def states(width: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(
        2, 5, width, generator=generator, dtype=torch.float64
    )  # (batch, tokens, width)


def rotation(width: int) -> torch.Tensor:
    return torch.linalg.qr(states(width, 9).flatten(0, 1)[:width]).Q


@pytest.mark.parametrize("kind", FEATURE_KINDS)
def test_identical_states_give_zero(kind):
    same = states(6, 1)
    loss = hidden_state_loss(same.clone(), same, MASK, kind=kind)
    assert loss.item() == pytest.approx(0, abs=1e-12)
    other = hidden_state_loss(states(6, 2), same, MASK, kind=kind)
    assert other.item() > 0.05


def test_mse_by_hand():
    student = torch.tensor([[[1.0, 0.0], [9.0, 9.0]]])
    teacher = torch.tensor([[[1.0, 2.0], [0.0, 0.0]]])
    mask = torch.tensor([[1, 0]])
    loss = hidden_state_loss(student, teacher, mask)
    assert loss.item() == pytest.approx(4 / 5)
    zeros = hidden_state_loss(torch.zeros(1, 2, 2), teacher, mask)
    assert zeros.item() == pytest.approx(1.0)


def test_cosine_by_hand_and_blind_to_length():
    student = torch.tensor([[[3.0, 0.0], [0.0, 5.0]]])
    teacher = torch.tensor([[[1.0, 1.0], [0.0, 0.1]]])
    loss = hidden_state_loss(student, teacher, torch.ones(1, 2), kind="cosine")
    assert loss.item() == pytest.approx((1 - 0.5**0.5) / 2, abs=1e-6)


def test_cosine_is_half_the_squared_error_of_unit_vectors():
    student, teacher = states(6, 1), states(6, 2)
    unit = [functional.normalize(x, dim=-1) for x in (student, teacher)]
    error = (unit[0] - unit[1]).square().sum(-1)[MASK].mean() / 2
    loss = hidden_state_loss(student, teacher, MASK, kind="cosine")
    assert loss.item() == pytest.approx(error.item(), abs=1e-12)


def test_relation_by_hand():
    """Three positions; the softmax of two cosines each."""
    student = torch.tensor([[[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]]]).double()
    teacher = torch.tensor([[[1.0, 0.0], [0.0, 1.0], [0.0, 1.0]]]).double()
    q = torch.tensor([[1.0, 0], [1, 0], [0, 0]]).double()
    p = torch.tensor([[0, 0], [0, 1.0], [0, 1]]).double()
    q, p = (x / RELATION_TEMPERATURE for x in (q, p))
    wanted = functional.kl_div(
        q.log_softmax(-1), p.log_softmax(-1), log_target=True, reduction="sum"
    )
    loss = relation_loss(student, teacher, torch.ones(1, 3).bool())
    assert loss.item() == pytest.approx(wanted.item() / 3)


def test_relation_does_not_see_rotation_scale_or_width():
    student, teacher = states(4, 1), states(6, 2)
    usual = hidden_state_loss(student, teacher, MASK, kind="relation")
    turned = hidden_state_loss(
        3.0 * student @ rotation(4),
        0.2 * teacher @ rotation(6),
        MASK,
        kind="relation",
    )
    assert usual.item() > 0.01
    assert turned.item() == pytest.approx(usual.item(), abs=1e-10)


@pytest.mark.parametrize("kind", FEATURE_KINDS)
def test_masked_out_positions_are_inert(kind):
    student, teacher = states(6, 1), states(6, 2)
    usual = hidden_state_loss(student, teacher, MASK, kind=kind)
    student[~MASK], teacher[~MASK] = 1e3, -7.0
    changed = hidden_state_loss(student, teacher, MASK, kind=kind)
    assert changed.item() == pytest.approx(usual.item(), abs=1e-12)


@pytest.mark.parametrize("kind", FEATURE_KINDS)
def test_empty_mask_is_zero_with_a_finite_gradient(kind):
    student = states(6, 1).requires_grad_()
    loss = hidden_state_loss(
        student, states(6, 2), torch.zeros(2, 5), kind=kind
    )
    loss.backward()
    assert loss.item() == 0
    assert torch.isfinite(student.grad).all()


@pytest.mark.parametrize("kind", FEATURE_KINDS)
def test_float64_finite_differences(kind):
    teacher = states(3, 2)
    assert torch.autograd.gradcheck(
        lambda student: hidden_state_loss(student, teacher, MASK, kind=kind),
        states(3, 1).requires_grad_(),
    )


@pytest.mark.parametrize("kind", ["mse", "cosine"])
def test_gradient_reaches_student_and_projector_not_teacher(kind):
    student = states(4, 1).float().requires_grad_()
    teacher = states(6, 2).float().requires_grad_()
    projector = nn.Linear(4, 6, bias=False)
    hidden_state_loss(
        student, teacher, MASK, projector=projector, kind=kind
    ).backward()
    assert student.grad.abs().sum() > 0
    assert (student.grad[~MASK] == 0).all()
    assert projector.weight.grad.abs().sum() > 0
    assert teacher.grad is None


def test_mask_of_the_shift_takes_the_position_before_the_answer():
    """The state that predicts the first answer token counts, its own not."""
    labels = torch.tensor([[-100, -100, 5, 6]])
    student, teacher = torch.zeros(1, 4, 2), torch.zeros(1, 4, 2)
    teacher[0, 1] = 1.0  # predicts label 5
    teacher[0, 3] = 100.0  # predicts nothing that is trained
    ours, _, mask = shift_for_next_token(student, labels)
    theirs, _, _ = shift_for_next_token(teacher, labels)
    assert mask.tolist() == [[False, True, True]]
    loss = hidden_state_loss(ours + 1.0, theirs, mask)
    assert loss.item() == pytest.approx(2 / 2)  # one right, one off by (1, 1)


@pytest.mark.parametrize(
    ("student", "teacher", "kind", "message"),
    [
        ((2, 5, 4), (2, 5, 6), "mse", "4 wide and the teacher's 6.*projector"),
        ((2, 4, 6), (2, 5, 6), "cosine", "does not fit|same rows"),
        ((2, 5, 6), (2, 5, 6), "cka", "unknown kind 'cka'"),
    ],
)
def test_what_does_not_fit_is_one_sentence(student, teacher, kind, message):
    with pytest.raises(LossError, match=message):
        hidden_state_loss(
            torch.zeros(student), torch.zeros(teacher), MASK, kind=kind
        )


@pytest.mark.parametrize("kind", FEATURE_KINDS)
def test_nan_is_named(kind):
    broken = states(6, 1)
    broken[1, 1] = float("nan")
    with pytest.raises(LossError, match="NaN"):
        hidden_state_loss(broken, states(6, 2), MASK, kind=kind)


def test_half_precision_is_computed_in_float32():
    student, teacher = states(6, 1).bfloat16(), states(6, 2).bfloat16()
    loss = hidden_state_loss(student, teacher, MASK)
    assert loss.dtype == torch.float32
