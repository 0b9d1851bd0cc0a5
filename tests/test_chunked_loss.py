"""The chunked loss: the same numbers, in less memory."""

from __future__ import annotations

import copy

import pytest
import tiny
import torch
from loss_cases import KINDS, gradient, hidden, some
from torch.nn import functional

from helpers.losses import LossError, chunked_kd_loss, kd_loss, output_head


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("chunk", [1, 2, 128])
@pytest.mark.parametrize(
    "dtype, within", [(torch.float32, 1e-5), (torch.float64, 1e-10)]
)
def test_chunked_kd_loss_equals_kd_loss_with_gradients(
    kind, chunk, dtype, within
):
    ours, head, theirs, their_head = hidden(dtype)
    options = {"temperature": 1.5, "kind": kind, "beta": 0.3, "skew": 0.2}
    mask = torch.tensor([[1, 0, 1], [0, 1, 1]])
    naive = kd_loss(head(ours), their_head(theirs), mask, **options)
    found = chunked_kd_loss(
        ours, head, theirs, their_head, mask, chunk=chunk, **options
    )
    close = {"atol": within, "rtol": within}
    torch.testing.assert_close(found, naive, **close)
    for a, b in zip(
        gradient(found, ours, head.weight),
        gradient(naive, ours, head.weight),
        strict=True,
    ):
        torch.testing.assert_close(a, b, **close)
        assert a.abs().sum() > 0.01


def test_chunked_kd_loss_takes_weights_for_heads():
    ours, head, theirs, their_head = hidden(torch.float32)
    args = ours, head, theirs, their_head, some()
    weights = ours, head.weight, theirs, their_head.weight, some()
    assert chunked_kd_loss(*weights) == chunked_kd_loss(*args)


def test_chunked_kd_loss_gradient_reaches_only_the_student():
    ours, head, theirs, their_head = hidden(torch.float32)
    theirs.requires_grad_()
    chunked_kd_loss(ours, head, theirs, their_head, some()).backward()
    assert ours.grad is not None and head.weight.grad is not None
    assert theirs.grad is None and their_head.weight.grad is None
    # a head that changes nothing hands its input on, gradient and all
    chunked_kd_loss(
        ours, lambda states: states, theirs, lambda states: states, some()
    ).backward()
    assert theirs.grad is None


def test_chunked_kd_loss_trains_the_head_alone():
    ours, head, theirs, their_head = hidden(torch.float32)
    for mask in (some(), ~some() & some()):
        loss = chunked_kd_loss(ours.detach(), head, theirs, their_head, mask)
        (found,) = gradient(loss, head.weight)
        assert bool(found.abs().sum()) == bool(mask.any())


def test_chunked_kd_loss_asks_for_few_masked_in_positions_at_a_time():
    ours, head, theirs, their_head = hidden(torch.float32)
    sizes = {"student": [], "teacher": []}

    def student(states):
        sizes["student"].append(len(states))
        return head(states)

    def teacher(states):
        sizes["teacher"].append(len(states))
        return their_head(states)

    mask = torch.tensor([[1, 0, 1], [1, 1, 1]])
    loss = chunked_kd_loss(ours, student, theirs, teacher, mask, chunk=2)
    assert sizes == {"student": [2, 2, 1], "teacher": [2, 2, 1]}
    loss.backward()  # makes them again, in whichever order
    assert sorted(sizes["student"]) == [1, 1, 2, 2, 2, 2]


class Held:
    """Counts the large tensors that autograd keeps."""

    def __init__(self, limit):
        self.limit, self.found = limit, 0

    def pack(self, tensor):
        self.found += tensor.nelement() >= self.limit
        return tensor


def test_chunked_kd_loss_keeps_no_logits_for_the_backward_pass():
    ours, head, theirs, their_head = hidden(torch.float32)
    counts = []
    for loss in (
        lambda: kd_loss(head(ours), their_head(theirs), some()),
        lambda: chunked_kd_loss(ours, head, theirs, their_head, some()),
    ):
        held = Held(limit=3 * 11)  # three positions' logits
        with torch.autograd.graph.saved_tensors_hooks(held.pack, lambda t: t):
            loss()
        counts.append(held.found)
    assert counts[0] > 3
    assert counts[1] <= 1  # at most the head's own weight


def with_head(*, bias=False, **config):
    """A tiny Gemma whose head has a bias, or its configuration a scale."""
    model = copy.deepcopy(tiny.plain_student().model)
    head = model.lm_head
    model.lm_head = torch.nn.Linear(*reversed(head.weight.shape), bias=bias)
    model.lm_head.weight.data = 3 * head.weight.detach()
    if bias:
        torch.nn.init.normal_(model.lm_head.bias, std=5.0)
    model.config.update(config)
    return model


@pytest.mark.parametrize(
    "change", [{}, {"bias": True}, {"final_logit_softcapping": 3.0}]
)
def test_output_head_gives_the_models_own_logits(change):
    model = with_head(**change)
    ids = torch.tensor([[5, 6, 7, 8]])
    with torch.no_grad():
        answer = model(input_ids=ids, output_hidden_states=True)
        states = answer.hidden_states[-1]
        logits = output_head(model, 900)(states)
        bare = functional.linear(states, model.lm_head.weight[:900])
    torch.testing.assert_close(logits, answer.logits[..., :900])
    assert torch.allclose(bare, logits) == (not change)


@pytest.mark.parametrize(
    "change", [{"bias": True}, {"final_logit_softcapping": 3.0}]
)
def test_chunked_kd_loss_of_output_heads_is_the_models_own(change):
    """A bare weight loses the bias and the cap; the head keeps them."""
    student, teacher = with_head(**change), tiny.plain_student().model
    ids = torch.tensor([[5, 6, 7, 8], [9, 8, 7, 6]])
    with torch.no_grad():
        ours, theirs = (
            model(input_ids=ids, output_hidden_states=True)
            for model in (student, teacher)
        )
    expected = kd_loss(ours.logits, theirs.logits, torch.ones(2, 4))
    pieces = ours.hidden_states[-1], theirs.hidden_states[-1]
    heads = [output_head(student), output_head(teacher)]
    found = chunked_kd_loss(
        pieces[0], heads[0], pieces[1], heads[1], torch.ones(2, 4), chunk=3
    )
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)
    heads[0] = student.lm_head.weight
    lost = chunked_kd_loss(
        pieces[0], heads[0], pieces[1], heads[1], torch.ones(2, 4), chunk=3
    )
    assert not torch.isclose(lost, expected, rtol=0.01)


def test_output_head_applies_coheres_scale():
    from transformers import CohereConfig, CohereForCausalLM

    config = CohereConfig(
        vocab_size=50,
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        logit_scale=0.25,
        pad_token_id=0,
    )
    model = CohereForCausalLM(config).eval()
    with torch.no_grad():
        answer = model(
            input_ids=torch.tensor([[5, 6, 7]]), output_hidden_states=True
        )
        found = output_head(model)(answer.hidden_states[-1])
    torch.testing.assert_close(found, answer.logits)


def test_output_head_refuses_a_scale_that_it_does_not_know():
    with pytest.raises(LossError, match="logits_scaling"):
        output_head(with_head(logits_scaling=8.0))
