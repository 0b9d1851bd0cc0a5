"""helpers.features: losses of states, CKA, layer maps and hooks."""

from __future__ import annotations

import pytest
import tiny
import torch
from torch import nn
from torch.nn import functional

from helpers.features import (
    FEATURE_KINDS,
    RELATION_TEMPERATURE,
    Projectors,
    depth,
    hidden_state_loss,
    layer_map,
    linear_cka,
    relation_loss,
    tapped,
)
from helpers.losses import LossError
from helpers.models import add_lora, load_student

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
    same = states(6, 1)
    loss = hidden_state_loss(same.clone(), same, MASK, kind=kind)
    assert loss.item() == pytest.approx(0, abs=1e-12)
    assert hidden_state_loss(states(6, 2), same, MASK, kind=kind) > 0.05


@pytest.mark.parametrize(
    "kind, student, teacher, mask, expected",
    [
        ("mse", [[1, 0], [9, 9]], [[1, 2], [0, 0]], [1, 0], 4 / 5),
        ("mse", [[0, 0], [0, 0]], [[1, 2], [0, 0]], [1, 0], 1.0),
        # blind to length: 45 degrees apart, then none
        ("cosine", [[3, 0], [0, 5]], [[1, 1], [0, 0.1]], [1, 1], 0.146447),
    ],
)
def test_two_positions_by_hand(kind, student, teacher, mask, expected):
    student, teacher = (
        torch.tensor([rows]).float() for rows in (student, teacher)
    )
    loss = hidden_state_loss(student, teacher, torch.tensor([mask]), kind=kind)
    assert loss.item() == pytest.approx(expected, abs=1e-6)


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
    assert usual.item() > 0.01
    torch.testing.assert_close(turned, usual)


@each_kind
def test_masked_out_positions_are_inert(kind):
    student, teacher = states(6, 1), states(6, 2)
    usual = hidden_state_loss(student, teacher, MASK, kind=kind)
    student[~MASK], teacher[~MASK] = 1e3, -7.0
    changed = hidden_state_loss(student, teacher, MASK, kind=kind)
    torch.testing.assert_close(changed, usual)


@each_kind
def test_empty_mask_is_zero_with_a_finite_gradient(kind):
    student = states(6, 1).requires_grad_()
    loss = hidden_state_loss(student, states(6, 2), ~MASK & MASK, kind=kind)
    loss.backward()
    assert loss.item() == 0
    assert torch.isfinite(student.grad).all()


@each_kind
def test_gradient_agrees_with_finite_differences(kind):
    teacher = states(3, 2)
    assert torch.autograd.gradcheck(
        lambda student: hidden_state_loss(student, teacher, MASK, kind=kind),
        states(3, 1).requires_grad_(),
    )


@pytest.mark.parametrize("kind", ["mse", "cosine"])
def test_gradient_reaches_student_and_projector_not_teacher(kind):
    student = states(4, 1).requires_grad_()
    teacher = states(6, 2).requires_grad_()
    projector = nn.Linear(4, 6, bias=False, dtype=torch.float64)
    hidden_state_loss(
        student, teacher, MASK, projector=projector, kind=kind
    ).backward()
    assert (student.grad[~MASK] == 0).all() and student.grad.any()
    assert projector.weight.grad.any()
    assert teacher.grad is None


@pytest.mark.parametrize(
    "student, teacher, mask, kind, match",
    [
        ((2, 5, 4), (2, 5, 6), MASK, "mse", "4 wide .* 6.*projector"),
        ((2, 5, 6), (2, 5, 6), MASK[:, :2], "mse", "mask .* does not fit"),
        ((2, 5, 6), (2, 5, 6), MASK, "cka", "unknown kind 'cka'"),
    ],
)
def test_what_does_not_fit_is_refused(student, teacher, mask, kind, match):
    student, teacher = torch.zeros(student), torch.zeros(teacher)
    with pytest.raises(LossError, match=match):
        hidden_state_loss(student, teacher, mask, kind=kind)


@each_kind
def test_nan_is_named(kind):
    broken = states(6, 1)
    broken[1, 1] = float("nan")
    with pytest.raises(LossError, match="NaN"):
        hidden_state_loss(broken, states(6, 2), MASK, kind=kind)


def test_half_precision_is_computed_in_float32():
    student, teacher = states(6, 1).bfloat16(), states(6, 2).bfloat16()
    loss = hidden_state_loss(student, teacher, MASK)
    assert loss.dtype == torch.float32


def test_cka_of_a_rotated_scaled_shifted_copy_is_one():
    first = noise(40, 6, seed=1)
    copy = 3 * first @ rotation(6) + 5
    assert linear_cka(first, copy).item() == pytest.approx(1)
    stretched = first * torch.tensor([9, 1, 1, 1, 1, 1])
    assert linear_cka(first, stretched).item() < 0.9


def test_cka_of_independent_noise_is_small_and_symmetric():
    first, second = noise(4000, 6, seed=1), noise(4000, 4, seed=2)
    there, back = linear_cka(first, second), linear_cka(second, first)
    assert 0 <= there.item() < 0.01
    assert there.item() == pytest.approx(back.item())


@pytest.mark.parametrize(
    "second, expected", [([0, 1, 0], 0.0), ([0, 0, 1], 0.75)]
)
def test_cka_of_one_column_is_the_squared_correlation(second, expected):
    first, second = torch.tensor([[0.0, 1, 2]]).T, torch.tensor([second]).T
    cka = linear_cka(first, second.float())
    assert cka.item() == pytest.approx(expected)


def test_layer_maps():
    assert layer_map("last", 3, 4) == ((3, 4),)
    assert layer_map("even", 3, 4) == ((1, 1), (2, 3), (3, 4))
    assert layer_map("even", 2, 8) == ((1, 4), (2, 8))
    grid = torch.zeros(3, 5)
    grid[1, 2] = grid[2, 2] = 1.0
    grid[2, 0] = 9.0  # the embedding does not count
    assert layer_map("cka", 2, 4, grid) == ((1, 2), (2, 2))
    with pytest.raises(LossError, match="grid"):
        layer_map("cka", 2, 4)
    with pytest.raises(LossError, match="'first'"):
        layer_map("first", 2, 4)


def test_projectors_start_orthonormal_and_from_their_seed():
    first, second = (
        Projectors(((1, 1), (2, 3)), 4, 6, seed=7).maps["2_3"].weight
        for _ in range(2)
    )  # (6, 4)
    assert torch.allclose(first.T @ first, torch.eye(4), atol=1e-5)
    assert torch.equal(first, second)


def test_tapped_states_equal_output_hidden_states():
    model = tiny.teacher().model
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


def test_tapped_works_through_adapters(tmp_path):
    student = add_lora(load_student(tiny.pair(tmp_path)), rank=2)
    with torch.no_grad(), tapped(student.model, [1]) as taken:
        asked = student.model(input_ids=IDS, output_hidden_states=True)
    assert torch.equal(taken[1], asked.hidden_states[1])


def test_tapped_reads_the_last_states_of_a_decoder_that_skips_its_norm(
    monkeypatch,
):
    """As Unsloth's on a GPU: the norm's weight is read, no module called."""
    model = tiny.teacher().model
    norm = model.get_decoder().norm
    usual = type(norm)
    unhooked = type("Unhooked", (usual,), {"__call__": usual.forward})
    monkeypatch.setattr(norm, "__class__", unhooked)
    with torch.no_grad(), tapped(model, [1, 2]) as taken:
        asked = model(input_ids=IDS, output_hidden_states=True)
    assert torch.equal(taken[2], asked.hidden_states[2])
