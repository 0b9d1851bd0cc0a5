"""The chunked loss: the same numbers, in less memory."""

from __future__ import annotations

import pytest
import torch
from loss_cases import KINDS, gradient, hidden, some

from helpers.losses import chunked_kd_loss, kd_loss


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
