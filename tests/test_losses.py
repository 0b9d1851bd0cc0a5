"""Losses by hand, against torch and TRL, in every corner, and refused."""

import math
from math import log
from types import SimpleNamespace

import pytest
import tiny
import torch
from loss_cases import ALL, INF, NONE, SOME, best, by_hand, gradient, pair
from torch.nn import functional

from helpers import CourseError, losses
from helpers.losses import KINDS, LossError, entropy, kd_loss

each_kind = pytest.mark.parametrize("kind", KINDS)

# Two tokens by hand: the teacher says (3/4, 1/4), the student (1/2, 1/2).
BY_HAND = {
    "forward": 0.75 * log(1.5) + 0.25 * log(0.5),
    "reverse": 0.5 * log(0.5 / 0.75) + 0.5 * log(0.5 / 0.25),
    # beta 0.25: the mixture is (0.5625, 0.4375)
    "jsd": 0.25 * (0.75 * log(0.75 / 0.5625) + 0.25 * log(0.25 / 0.4375))
    + 0.75 * (0.5 * log(0.5 / 0.5625) + 0.5 * log(0.5 / 0.4375)),
    # skew 0.2: the mixture is (0.55, 0.45)
    "skew": 0.75 * log(0.75 / 0.55) + 0.25 * log(0.25 / 0.45),
}


@each_kind
def test_two_tokens_by_hand(kind):
    student, teacher = by_hand(0.5, 0.5), by_hand(0.75, 0.25)
    loss = kd_loss(
        student, teacher, torch.ones(1, 1), kind=kind, beta=0.25, skew=0.2
    )
    assert loss.item() == pytest.approx(BY_HAND[kind], abs=1e-12)


@each_kind
def test_equal_logits_give_zero_and_others_do_not(kind):
    student, teacher = pair()
    loss = kd_loss(teacher + 5, teacher, ALL, kind=kind)
    assert loss.item() == pytest.approx(0, abs=1e-6)
    assert kd_loss(student, teacher, ALL, kind=kind) > 0.1
    student, teacher = pair(scale=1e4)
    loss = kd_loss(student, teacher, ALL, kind=kind)
    assert torch.isfinite(loss)
    assert torch.isfinite(gradient(loss, student)[0]).all()


@each_kind
def test_temperature_softens_and_scales_by_its_square(kind):
    student, teacher = pair()
    warm = kd_loss(student, teacher, ALL, kind=kind, temperature=4.0)
    cold = kd_loss(student / 4, teacher / 4, ALL, kind=kind)
    torch.testing.assert_close(warm, 16 * cold)


@each_kind
def test_masked_out_positions_are_inert(kind):
    student, teacher = pair()
    teacher.requires_grad_()
    out = ~SOME[..., None]
    broken = student.detach().masked_fill(out, math.nan).requires_grad_()
    loss = kd_loss(student, teacher, SOME.long(), kind=kind)
    other = kd_loss(broken, teacher + out * 9, SOME, kind=kind)
    assert other.item() == loss.item()
    (before,), (after,) = gradient(loss, student), gradient(other, broken)
    assert torch.equal(before, after)
    assert (after[~SOME] == 0).all() and (after[SOME] != 0).all()
    loss = kd_loss(student, teacher, SOME, kind=kind)
    loss.backward()
    assert teacher.grad is None
    each = [  # a mean over positions, not over rows
        kd_loss(*(x[i, j][None, None] for x in pair()), ALL[:1, :1], kind=kind)
        for i, j in SOME.nonzero()
    ]
    torch.testing.assert_close(loss, torch.stack(each).mean())


def every_loss(student, teacher, mask, **options):
    """Every loss of logits, on one batch."""
    head = torch.eye(student.shape[-1], dtype=student.dtype)
    for kind in KINDS:
        yield kd_loss(student, teacher, mask, kind=kind, **options)
    states = student, head, teacher, head
    yield losses.chunked_kd_loss(*states, mask, **options)
    for tail in (True, False):
        top = best(teacher, 3)
        yield losses.topk_kd_loss(student, *top, mask, tail=tail, **options)


def test_fully_masked_batch_is_zero_with_a_gradient():
    student, teacher = pair()
    for loss in every_loss(student, teacher, NONE):
        assert loss.item() == 0
        assert torch.equal(gradient(loss, student)[0], student * 0)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
def test_half_precision_is_computed_in_float32(dtype):
    dtype = getattr(torch, dtype)
    wide = torch.promote_types(dtype, torch.float32)
    student, teacher = pair(dtype=dtype)
    narrow = list(every_loss(student, teacher, SOME))
    expected = every_loss(student.to(wide), teacher.to(wide), SOME)
    for loss, reference in zip(narrow, expected, strict=True):
        assert loss.dtype == wide
        assert loss.item() == reference.item()
    assert gradient(narrow[0], student)[0].dtype == dtype


def test_gradients_agree_with_finite_differences():
    student, teacher = pair(dtype=torch.float64)

    def together(logits):
        return torch.stack([*every_loss(logits, teacher, SOME, temperature=2)])

    assert torch.autograd.gradcheck(together, student)


@pytest.mark.parametrize("beta", [0.0, 0.1, 0.5, 0.9, 1.0])
@pytest.mark.parametrize("temperature", [1.0, 2.5])
def test_loss_and_gradient_agree_with_trl(beta, temperature):
    """TRL leaves T**2 out; beta 0 is forward and 1 is reverse in both."""
    from trl.experimental.gkd import GKDTrainer

    student, teacher = pair()
    options = {"beta": beta, "temperature": temperature}
    expected = GKDTrainer.generalized_jsd_loss(
        student, teacher, labels=torch.where(SOME, 1, -100), **options
    )
    slope = gradient(expected, student)
    for kind in ["jsd", *{0: ["forward"], 1: ["reverse"]}.get(beta, [])]:
        loss = kd_loss(student, teacher, SOME, kind=kind, **options)
        loss = loss / temperature**2
        torch.testing.assert_close(loss, expected, atol=1e-6, rtol=1e-6)
        ours = gradient(loss, student)
        torch.testing.assert_close(ours, slope, atol=1e-6, rtol=1e-5)


def test_skew_is_bounded_and_starts_at_forward():
    student, teacher = pair(scale=50.0)
    skewed = kd_loss(student, teacher, ALL, kind="skew", skew=0.1)
    forward = kd_loss(student, teacher, ALL)
    assert skewed < log(10) < forward
    assert kd_loss(student, teacher, ALL, kind="skew", skew=0.0) == forward


@each_kind
def test_tokens_that_both_exclude_might_as_well_not_exist(kind):
    student, teacher = pair()
    excluded = torch.arange(7) >= 5
    gone = student.detach().masked_fill(excluded, -INF).requires_grad_()
    loss = kd_loss(gone, teacher.masked_fill(excluded, -INF), SOME, kind=kind)
    short = kd_loss(student[..., :5], teacher[..., :5], SOME, kind=kind)
    torch.testing.assert_close(loss, short)
    torch.testing.assert_close(gradient(loss, gone), gradient(short, student))


@each_kind
@pytest.mark.parametrize("who", ["student", "teacher"])
def test_a_token_that_one_excludes_is_never_nan(kind, who):
    student, teacher = (logits.detach() for logits in pair())
    excluding = student if who == "student" else teacher
    excluding[..., 2] = -INF
    loss = kd_loss(student.requires_grad_(), teacher, SOME, kind=kind)
    infinite = (kind, who) in (("forward", "student"), ("reverse", "teacher"))
    assert (loss > 1e25) if infinite else (0 < loss < 10)
    assert torch.isfinite(loss)
    assert torch.isfinite(gradient(loss, student)[0]).all()


def test_entropy_of_known_distributions():
    assert entropy(torch.zeros(8)).item() == pytest.approx(log(8))
    assert entropy(torch.tensor([0.0, -INF, -INF])).item() == 0
    logits = torch.tensor([2.0, 0.0])
    assert entropy(logits, temperature=2.0) == entropy(logits / 2)


def test_shift_gives_the_models_own_loss():
    """An independent implementation: transformers shifts inside."""
    ids = torch.arange(20, 38).reshape(2, 9)
    labels = ids.clone()
    labels[0, :4], labels[1, :6] = -100, -100
    with torch.no_grad():
        output = tiny.teacher().model(input_ids=ids, labels=labels)
    logits, targets, mask = losses.shift_for_next_token(output.logits, labels)
    loss = functional.cross_entropy(logits[mask], targets[mask])
    assert mask.sum() == 8
    torch.testing.assert_close(loss, output.loss)


@pytest.mark.parametrize(
    "options, match",
    [
        *(({"temperature": t}, f"{t}") for t in (0, -1.0, math.nan, INF)),
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
        losses.chunked_kd_loss(student, head, teacher, head, SOME, **options)
    if "temperature" in options:
        top = best(teacher, 3)
        with pytest.raises(LossError, match="temperature"):
            losses.topk_kd_loss(student, *top, SOME, **options)


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


@each_kind
@pytest.mark.parametrize("bad", [math.nan, INF])
def test_nan_is_named(kind, bad):
    for who in (0, 1):
        logits = [x.detach() for x in pair()]
        logits[who][0, 0, 3] = bad
        with pytest.raises(LossError, match="is NaN"):
            kd_loss(*logits, SOME, kind=kind)


def test_vocabularies_of_one_tokenizer_and_one_width_agree():
    small, large = (tiny.tokenizer(n) for n in (tiny.SMALL, tiny.TEACHER))
    check = losses.check_vocabularies
    check(small, large, 896, 896)
    with pytest.raises(CourseError, match=rf"1024.*:{len(large)}\]"):
        check(small, large, 896, 1024)
    words = dict(large.get_vocab())
    first, second = list(words)[40:42]  # two tokens that change places
    words |= {first: words[second], second: words[first]}
    swapped = SimpleNamespace(get_vocab=lambda: words)
    for other in (swapped, tiny.tokenizer(tiny.STUDENT)):
        with pytest.raises(CourseError, match="tokenizers differ"):
            check(other, large, 896, 896)
