"""The chunked loss: the same numbers, in less memory."""

import copy

import pytest
import tiny
import torch
from loss_cases import SOME, gradient
from torch.nn import functional

from helpers.losses import (
    KINDS,
    LossError,
    chunked_kd_loss,
    kd_loss,
    output_head,
)


def hidden(dtype=torch.float32):
    """The student's states (2, 3, 5) and head (11 tokens), the teacher's."""
    torch.manual_seed(4)
    ours, theirs = torch.randn(2, 2, 3, 5, dtype=dtype)
    heads = [torch.nn.Linear(5, 11, bias=False, dtype=dtype) for _ in range(2)]
    return ours.requires_grad_(), heads[0], theirs, heads[1]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("chunk", [1, 2, 128])
@pytest.mark.parametrize(
    "dtype, within", [(torch.float32, 1e-5), (torch.float64, 1e-10)]
)
def test_chunked_equals_whole_with_gradients(kind, chunk, dtype, within):
    ours, head, theirs, their_head = parts = hidden(dtype)
    options = {"temperature": 1.5, "kind": kind, "beta": 0.3, "skew": 0.2}
    mask = torch.tensor([[1, 0, 1], [0, 1, 1]])
    whole = kd_loss(head(ours), their_head(theirs), mask, **options)
    loss = chunked_kd_loss(*parts, mask, chunk=chunk, **options)
    close = {"atol": within, "rtol": within}
    torch.testing.assert_close(loss, whole, **close)
    gradients = gradient(loss, ours, head.weight)
    expected = gradient(whole, ours, head.weight)
    torch.testing.assert_close(gradients, expected, **close)
    assert all(g.abs().sum() > 0.01 for g in gradients)


def test_heads_may_be_weights():
    ours, head, theirs, their_head = parts = hidden()
    weights = ours, head.weight, theirs, their_head.weight
    assert chunked_kd_loss(*weights, SOME) == chunked_kd_loss(*parts, SOME)
    alone = ours.detach(), head.weight, theirs, their_head.weight
    (slope,) = gradient(chunked_kd_loss(*alone, SOME), head.weight)
    assert slope.any()  # where the head is trained alone
    with pytest.raises(LossError, match="are 9 wide and the teacher's 11"):
        chunked_kd_loss(ours, head.weight[:9], theirs, their_head, SOME)


def test_heads_see_few_masked_in_positions_at_a_time():
    ours, head, theirs, their_head = parts = hidden()
    sizes = {head: [], their_head: []}
    for module in sizes:
        module.register_forward_hook(
            lambda module, args, _: sizes[module].append(len(args[0]))
        )
    mask = torch.tensor([[1, 0, 1], [1, 1, 1]])
    loss = chunked_kd_loss(*parts, mask, chunk=2)
    assert list(sizes.values()) == [[2, 2, 1], [2, 2, 1]]
    loss.backward()  # makes them again, in whichever order
    assert sorted(sizes[head]) == [1, 1, 2, 2, 2, 2]


def test_no_logits_are_kept_for_the_backward_pass():
    ours, head, theirs, their_head = parts = hidden()

    def large_tensors_kept(make_loss):
        sizes = []
        with torch.autograd.graph.saved_tensors_hooks(
            lambda tensor: sizes.append(tensor.nelement()) or tensor,
            lambda tensor: tensor,
        ):
            make_loss()
        return sum(size >= 3 * 11 for size in sizes)  # 3 positions' logits

    whole = large_tensors_kept(
        lambda: kd_loss(head(ours), their_head(theirs), SOME)
    )
    chunked = large_tensors_kept(lambda: chunked_kd_loss(*parts, SOME))
    assert whole > 3
    assert chunked <= 1  # at most the head's own weight


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
def test_output_head_and_its_chunked_loss_are_the_models_own(change):
    models = with_head(**change), tiny.plain_student().model
    ids, mask = torch.tensor([[5, 6, 7, 8], [9, 8, 7, 6]]), torch.ones(2, 4)
    parts, logits = [], []
    with torch.no_grad():
        for model in models:
            output = model(input_ids=ids, output_hidden_states=True)
            states = output.hidden_states[-1]
            parts += [states, output_head(model)]
            logits.append(output.logits)
            shorter = output_head(model, 900)(states)
            torch.testing.assert_close(shorter, output.logits[..., :900])
        bare = functional.linear(parts[0], models[0].lm_head.weight)
    assert torch.allclose(bare, logits[0]) == (not change)
    loss = chunked_kd_loss(*parts, mask, chunk=3)
    expected = kd_loss(*logits, mask)
    torch.testing.assert_close(loss, expected, rtol=1e-4, atol=1e-6)


def test_output_head_applies_coheres_scale():
    from transformers import CohereConfig, CohereForCausalLM

    sizes = {"vocab_size": 50, "hidden_size": 16, "intermediate_size": 16}
    sizes |= {"num_hidden_layers": 1, "num_attention_heads": 2}
    config = CohereConfig(**sizes, logit_scale=0.25, pad_token_id=0)
    model = CohereForCausalLM(config).eval()
    ids = torch.tensor([[5, 6, 7]])
    with torch.no_grad():
        answer = model(input_ids=ids, output_hidden_states=True)
        logits = output_head(model)(answer.hidden_states[-1])
    torch.testing.assert_close(logits, answer.logits)
    with pytest.raises(LossError, match="logits_scaling"):  # not known
        output_head(with_head(logits_scaling=8.0))
