"""Losses from a part: the teacher's best tokens, or a few positions."""

import copy
import math
from math import log

import pytest
import tiny
import torch
from loss_cases import ALL, INF, SOME, best, by_hand, gradient, pair, topk_loss
from torch.nn import functional

from helpers.losses import (
    KINDS,
    LossError,
    chunked_kd_loss,
    kd_loss,
    output_head,
    topk_kd_loss,
)


@pytest.mark.parametrize("tail", [True, False])
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
