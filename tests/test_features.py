"""helpers.features: losses of states, CKA, layer maps and hooks."""

import math

import pytest
import tiny
import torch
from torch.nn import functional

from helpers.features import (
    FEATURE_KINDS,
    RELATION_TEMPERATURE,
    depth,
    hidden_state_loss,
    layer_map,
    linear_cka,
    relation_loss,
    tapped,
)
from helpers.losses import LossError

MASK = torch.tensor([[0, 1, 1, 1, 1], [1, 1, 1, 0, 0]]).bool()
IDS = torch.tensor([[5, 6, 7, 8, 9], [9, 8, 7, 6, 5]])
each_kind = pytest.mark.parametrize("kind", FEATURE_KINDS)


def noise(*shape, seed):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def states(width, seed):
    return noise(2, 5, width, seed=seed)


def rotation(width):
    return torch.linalg.qr(noise(width, width, seed=9)).Q


@each_kind
def test_identical_states_give_zero_and_others_do_not(kind):
    same, other = states(6, 1), states(6, 2)
    loss = hidden_state_loss(same.clone(), same, MASK, kind=kind)
    assert loss.item() == pytest.approx(0, abs=1e-12)
    usual = hidden_state_loss(other, same, MASK, kind=kind)
    assert usual > 0.05
    other[~MASK], same[~MASK] = 1e3, -7.0  # what is masked out is inert
    changed = hidden_state_loss(other, same, MASK, kind=kind)
    torch.testing.assert_close(changed, usual)


def test_mse_and_cosine_by_hand():
    student, teacher = torch.tensor([[[3.0, 0], [0, 5]], [[1, 1], [0, 0.1]]])
    mask = torch.tensor([[1, 0]])
    loss = hidden_state_loss(student[None], teacher[None], mask, kind="mse")
    assert loss.item() == pytest.approx((2**2 + 1) / (1 + 1))
    loss = hidden_state_loss(student[None], teacher[None], mask, kind="cosine")
    assert loss.item() == pytest.approx(1 - 0.5**0.5)  # 45 degrees


def test_relation_by_hand():
    """Three positions; the softmax of two cosines each."""
    student = torch.tensor([[[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]]]).double()
    teacher = torch.tensor([[[1.0, 0.0], [0.0, 1.0], [0.0, 1.0]]]).double()
    q = torch.tensor([[1.0, 0], [1, 0], [0, 0]]).double()
    p = torch.tensor([[0, 0], [0, 1.0], [0, 1]]).double()
    q, p = ((x / RELATION_TEMPERATURE).log_softmax(-1) for x in (q, p))
    expected = functional.kl_div(q, p, log_target=True, reduction="sum") / 3
    loss = relation_loss(student, teacher, torch.ones(1, 3).bool())
    torch.testing.assert_close(loss, expected)


def test_relation_does_not_see_rotation_scale_or_width():
    student, teacher = states(4, 1), states(6, 2)
    usual = hidden_state_loss(student, teacher, MASK, kind="relation")
    student, teacher = 3 * student @ rotation(4), 0.2 * teacher @ rotation(6)
    turned = hidden_state_loss(student, teacher, MASK, kind="relation")
    torch.testing.assert_close(turned, usual)


@each_kind
def test_gradient_agrees_with_finite_differences(kind):
    student, teacher = states(3, 1).requires_grad_(), states(3, 2)
    teacher.requires_grad_()

    def loss(student, mask=MASK):
        return hidden_state_loss(student, teacher, mask, kind=kind)

    assert torch.autograd.gradcheck(loss, student)
    nothing = loss(student, MASK & ~MASK)
    nothing.backward()
    assert nothing.item() == 0 and not student.grad.any()
    loss(student).backward()
    assert student.grad[MASK].all() and not student.grad[~MASK].any()
    assert teacher.grad is None


@pytest.mark.parametrize(
    "student, mask, kind, match",
    [
        (states(4, 1), MASK, "mse", "4 wide .* 6.*projector"),
        (states(6, 1), MASK[:, :2], "mse", "mask .* does not fit"),
        (states(6, 1), MASK, "cka", "unknown kind 'cka'"),
        *((states(6, 1) * math.nan, MASK, k, "NaN") for k in FEATURE_KINDS),
    ],
)
def test_what_does_not_fit_is_refused(student, mask, kind, match):
    with pytest.raises(LossError, match=match):
        hidden_state_loss(student, states(6, 2), mask, kind=kind)


def test_cka_of_a_rotated_scaled_shifted_copy_is_one():
    first, other = noise(4000, 6, seed=1), noise(4000, 4, seed=2)
    copy = 3 * first @ rotation(6) + 5
    assert linear_cka(first, copy).item() == pytest.approx(1)
    stretched = first * torch.tensor([9, 1, 1, 1, 1, 1])
    assert linear_cka(first, stretched).item() < 0.9
    assert 0 <= linear_cka(first, other).item() < 0.01
    # of one column it is the squared correlation
    column, partly = torch.tensor([[0.0, 1, 2], [0, 0, 1]])[..., None]
    assert linear_cka(column, partly).item() == pytest.approx(0.75)


def test_layer_maps():
    assert layer_map("last", 3, 4) == ((3, 4),)
    assert layer_map("even", 3, 4) == ((1, 1), (2, 3), (3, 4))
    grid = torch.zeros(3, 5)
    grid[1, 2] = grid[2, 2] = 1.0
    grid[2, 0] = 9.0  # the embedding does not count
    assert layer_map("cka", 2, 4, grid) == ((1, 2), (2, 2))
    for kind in ("cka", "first"):
        with pytest.raises(LossError, match=f"{kind}.*grid"):
            layer_map(kind, 2, 4)


@pytest.mark.parametrize("rank", [None, 2])
def test_tapped_states_equal_output_hidden_states(tmp_path, rank):
    """Also through adapters."""
    model = tiny.teacher().model
    if rank:
        model = tiny.student(tiny.pair(tmp_path), rank).model
    with torch.no_grad(), tapped(model, [0, 1, 2]) as taken:
        asked = model(input_ids=IDS, output_hidden_states=True)
    assert sorted(taken) == [0, 1, 2] and depth(model) == 2
    for layer, state in taken.items():
        assert torch.equal(state, asked.hidden_states[layer])
    with torch.no_grad():
        model(input_ids=IDS + 1)
    assert torch.equal(taken[2], asked.hidden_states[2])  # hooks are gone
    with pytest.raises(LossError, match="no layer 3"), tapped(model, [3]):
        pass


def test_tapped_where_the_decoder_skips_its_norm(monkeypatch):
    """As Unsloth's on a GPU: the norm's weight is read, no module called."""
    model = tiny.teacher().model
    norm = model.get_decoder().norm
    unhooked = type("Norm", (type(norm),), {"__call__": type(norm).forward})
    monkeypatch.setattr(norm, "__class__", unhooked)
    with torch.no_grad(), tapped(model, [1, 2]) as taken:
        asked = model(input_ids=IDS, output_hidden_states=True)
    assert torch.equal(taken[2], asked.hidden_states[2])
