"""Losses by hand, against torch and TRL, and in every corner."""

from __future__ import annotations

import math

import pytest
import tiny
import torch
from loss_cases import (
    INF,
    KINDS,
    LN,
    best,
    everywhere,
    gradient,
    pair,
    some,
)
from torch.nn import functional

from helpers.losses import (
    chunked_kd_loss,
    entropy,
    kd_loss,
    shift_for_next_token,
    topk_kd_loss,
)

# Two tokens by hand: the teacher says (3/4, 1/4), the student (1/2, 1/2).
TEACHER, STUDENT = (0.75, 0.25), (0.5, 0.5)
BY_HAND = {
    "forward": 0.75 * LN(1.5) + 0.25 * LN(0.5),
    "reverse": 0.5 * LN(0.5 / 0.75) + 0.5 * LN(0.5 / 0.25),
    # beta 0.25: the mixture is (0.5625, 0.4375)
    "jsd": 0.25 * (0.75 * LN(0.75 / 0.5625) + 0.25 * LN(0.25 / 0.4375))
    + 0.75 * (0.5 * LN(0.5 / 0.5625) + 0.5 * LN(0.5 / 0.4375)),
    # skew 0.2: the mixture is (0.55, 0.45)
    "skew": 0.75 * LN(0.75 / 0.55) + 0.25 * LN(0.25 / 0.45),
}


@pytest.mark.parametrize("kind", KINDS)
def test_kd_loss_two_tokens_by_hand(kind):
    student, teacher = (
        torch.tensor([[p]], dtype=torch.float64).log()
        for p in (STUDENT, TEACHER)
    )
    loss = kd_loss(
        student, teacher, everywhere(student), kind=kind, beta=0.25, skew=0.2
    )
    assert loss.item() == pytest.approx(BY_HAND[kind], abs=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_kd_loss_of_equal_logits_is_zero_and_otherwise_positive(kind):
    student, teacher = pair()
    mask = everywhere(student)
    same = kd_loss(teacher, teacher.clone(), mask, kind=kind)
    assert same.item() == pytest.approx(0, abs=1e-6)
    shifted = kd_loss(teacher + 5, teacher, mask, kind=kind)
    assert shifted.item() == pytest.approx(0, abs=1e-6)
    assert kd_loss(student, teacher, mask, kind=kind) > 0.1


@pytest.mark.parametrize("kind", KINDS)
def test_kd_loss_gradient_reaches_only_the_student(kind):
    student, teacher = pair()
    teacher.requires_grad_()
    kd_loss(student, teacher, everywhere(student), kind=kind).backward()
    assert student.grad.abs().sum() > 0.1
    assert teacher.grad is None


def test_kd_loss_gradient_by_hand():
    """T**2 times (q - p) / T per position (arXiv:1503.02531, eq. 2)."""
    student, teacher = pair()
    loss = kd_loss(student, teacher, everywhere(student), temperature=3.0)
    (found,) = gradient(loss, student)
    expected = (student / 3).softmax(-1) - (teacher / 3).softmax(-1)
    torch.testing.assert_close(found, 3 * expected.detach() / 6)


@pytest.mark.parametrize("kind", KINDS)
def test_kd_loss_temperature_softens_and_scales_by_its_square(kind):
    student, teacher = pair()
    mask = everywhere(student)
    warm = kd_loss(student, teacher, mask, kind=kind, temperature=4.0)
    cold = kd_loss(student / 4, teacher / 4, mask, kind=kind)
    torch.testing.assert_close(warm, 16 * cold)
    assert not torch.isclose(
        warm, kd_loss(student, teacher, mask, kind=kind), rtol=0.01
    )


@pytest.mark.parametrize("kind", KINDS)
def test_kd_loss_masked_out_positions_are_inert(kind):
    student, teacher = pair()
    loss = kd_loss(student, teacher, some(), kind=kind)
    broken = student.detach().masked_fill(~some()[..., None], math.nan)
    broken.requires_grad_()
    other = kd_loss(
        broken, teacher + (~some())[..., None] * 9, some(), kind=kind
    )
    assert other.item() == loss.item()
    before, after = gradient(loss, student)[0], gradient(other, broken)[0]
    assert torch.equal(before, after)
    assert (after[~some()] == 0).all() and (after[some()] != 0).all()


def test_kd_loss_is_a_mean_over_positions_not_over_rows():
    student, teacher = pair()
    each = [
        kd_loss(
            student[i : i + 1, [j]], teacher[i : i + 1, [j]], torch.ones(1, 1)
        )
        for i, j in some().nonzero()
    ]
    loss = kd_loss(student, teacher, some())
    torch.testing.assert_close(loss, torch.stack(each).mean())


def test_kd_loss_takes_a_mask_of_zeros_and_ones():
    student, teacher = pair()
    expected = kd_loss(student, teacher, some())
    for dtype in (torch.long, torch.float32, torch.uint8):
        assert kd_loss(student, teacher, some().to(dtype)) == expected


def calls(student, teacher, mask):
    """Every loss of logits, on one batch."""
    top = best(teacher, 3)
    yield from (kd_loss(student, teacher, mask, kind=kind) for kind in KINDS)
    head = torch.eye(student.shape[-1], dtype=student.dtype)
    yield chunked_kd_loss(student, head, teacher, head, mask, chunk=2)
    for tail in (True, False):
        yield topk_kd_loss(student, *top[::-1], mask, tail=tail)


def test_losses_of_a_fully_masked_batch_are_zero_with_a_gradient():
    student, teacher = pair()
    losses = list(calls(student, teacher, torch.zeros(2, 3)))
    assert len(losses) == 7
    for loss in losses:
        assert loss.item() == 0
        (found,) = gradient(loss, student)
        assert torch.equal(found, torch.zeros_like(student))


def test_losses_are_float32_or_better():
    for dtype, expected in (
        (torch.float16, torch.float32),
        (torch.bfloat16, torch.float32),
        (torch.float32, torch.float32),
        (torch.float64, torch.float64),
    ):
        student, teacher = pair(dtype=dtype)
        wide = pair(dtype=dtype)[0].detach().to(expected).requires_grad_()
        found = list(calls(student, teacher, some()))
        again = list(calls(wide, teacher.to(expected), some()))
        for loss, reference in zip(found, again, strict=True):
            assert loss.dtype == expected
            assert loss.item() == reference.item()
        assert gradient(found[0], student)[0].dtype == dtype


@pytest.mark.parametrize("kind", KINDS)
def test_kd_loss_gradient_agrees_with_finite_differences(kind):
    student, teacher = pair(dtype=torch.float64)
    assert torch.autograd.gradcheck(
        lambda logits: kd_loss(
            logits, teacher, some(), kind=kind, beta=0.3, temperature=1.7
        ),
        student,
    )


def test_kd_loss_agrees_with_torch():
    student, teacher = pair()
    p, q = teacher.log_softmax(-1)[some()], student.log_softmax(-1)[some()]
    for kind, first, second in (("forward", q, p), ("reverse", p, q)):
        expected = functional.kl_div(
            first, second, log_target=True, reduction="batchmean"
        )
        found = kd_loss(student, teacher, some(), kind=kind)
        torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("beta", [0.0, 0.1, 0.5, 0.9, 1.0])
@pytest.mark.parametrize("temperature", [1.0, 2.5])
def test_kd_loss_agrees_with_trl(beta, temperature):
    """TRL leaves T**2 out; beta 0 is forward and 1 is reverse in both."""
    from trl.experimental.gkd import GKDTrainer

    student, teacher = pair()
    expected = GKDTrainer.generalized_jsd_loss(
        student,
        teacher,
        labels=torch.where(some(), 1, -100),
        beta=beta,
        temperature=temperature,
    )
    found = kd_loss(
        student,
        teacher,
        some(),
        kind="jsd",
        beta=beta,
        temperature=temperature,
    )
    torch.testing.assert_close(
        found / temperature**2, expected, atol=1e-6, rtol=1e-6
    )
    for ours, theirs in zip(
        gradient(found, student), gradient(expected, student), strict=True
    ):
        torch.testing.assert_close(
            ours / temperature**2, theirs, atol=1e-6, rtol=1e-5
        )


def test_kd_loss_jsd_vanishes_towards_its_ends():
    student, teacher = pair(dtype=torch.float64)
    mask, small = everywhere(student), 1e-6
    low = kd_loss(student, teacher, mask, kind="jsd", beta=small)
    high = kd_loss(student, teacher, mask, kind="jsd", beta=1 - small)
    forward = kd_loss(student, teacher, mask)
    reverse = kd_loss(student, teacher, mask, kind="reverse")
    torch.testing.assert_close(low / small, forward, rtol=1e-3, atol=0)
    torch.testing.assert_close(high / small, reverse, rtol=1e-3, atol=0)


def test_kd_loss_skew_is_bounded_and_starts_at_forward():
    student, teacher = pair(scale=50.0)
    mask = everywhere(student)
    skewed = kd_loss(student, teacher, mask, kind="skew", skew=0.1)
    forward = kd_loss(student, teacher, mask)
    assert skewed < LN(10) < forward
    assert kd_loss(student, teacher, mask, kind="skew", skew=0.0) == forward


@pytest.mark.parametrize("kind", KINDS)
def test_kd_loss_of_excluded_tokens_is_as_if_they_did_not_exist(kind):
    student, teacher = pair()
    excluded = torch.arange(7) >= 5
    gone = student.detach().masked_fill(excluded, -INF).requires_grad_()
    loss = kd_loss(
        gone, teacher.masked_fill(excluded, -INF), some(), kind=kind
    )
    short = kd_loss(student[..., :5], teacher[..., :5], some(), kind=kind)
    torch.testing.assert_close(loss, short)
    (found,) = gradient(loss, gone)
    expected = gradient(short, student)[0]
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("who", ["student", "teacher"])
def test_kd_loss_of_a_token_excluded_by_one_is_never_nan(kind, who):
    student, teacher = pair()
    excluded = torch.arange(7) == 2
    if who == "student":
        student = student.detach().masked_fill(excluded, -INF)
        student.requires_grad_()
    else:
        teacher = teacher.masked_fill(excluded, -INF)
    loss = kd_loss(student, teacher, some(), kind=kind)
    infinite = (kind, who) in (("forward", "student"), ("reverse", "teacher"))
    assert (loss > 1e25) if infinite else (0 < loss < 10)
    assert torch.isfinite(loss)
    assert torch.isfinite(gradient(loss, student)[0]).all()


def test_kd_loss_survives_huge_logits():
    student, teacher = pair(scale=1e4)
    for kind in KINDS:
        loss = kd_loss(student, teacher, some(), kind=kind)
        assert torch.isfinite(loss)
        assert torch.isfinite(gradient(loss, student)[0]).all()


def test_entropy_of_known_distributions():
    even = torch.zeros(2, 8)
    sure = torch.tensor([0.0, -INF, -INF])
    assert entropy(even).tolist() == pytest.approx([LN(8)] * 2)
    assert entropy(sure).item() == 0
    logits = torch.tensor([2.0, 0.0])
    assert entropy(logits, temperature=2.0) == entropy(logits / 2)
    assert entropy(logits, temperature=2.0) > entropy(logits)


def test_shift_for_next_token_keeps_the_first_answer_token():
    """Prompt of two, answer of two: predicted at positions 1 and 2."""
    labels = torch.tensor([[-100, -100, 8, 9]])
    logits = torch.arange(4.0)[None, :, None].expand(1, 4, 10)
    shifted, targets, mask = shift_for_next_token(logits, labels)
    assert targets[mask].tolist() == [8, 9]
    assert shifted[mask][:, 0].tolist() == [1.0, 2.0]
    assert shifted.shape == (1, 3, 10)


def test_shift_for_next_token_gives_the_models_own_loss():
    """An independent implementation: transformers shifts inside."""
    model = tiny.teacher().model
    torch.manual_seed(0)
    ids = torch.randint(20, 500, (2, 9))
    labels = ids.clone()
    labels[0, :4], labels[1, :6] = -100, -100
    with torch.no_grad():
        output = model(input_ids=ids, labels=labels)
    logits, targets, mask = shift_for_next_token(output.logits, labels)
    loss = functional.cross_entropy(logits[mask], targets[mask])
    assert mask.sum() == 8
    torch.testing.assert_close(loss, output.loss)
