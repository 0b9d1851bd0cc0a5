"""Logits, hidden states and teachers' top tokens, for the loss tests."""

from __future__ import annotations

import math

import torch

from helpers.losses import topk_kd_loss

KINDS = ("forward", "reverse", "jsd", "skew")
LN = math.log
INF = float("inf")


def pair(seed=0, *, shape=(2, 3, 7), dtype=torch.float32, scale=2.0):
    """Random logits of a student, which wants gradients, and a teacher."""
    maker = torch.Generator().manual_seed(seed)
    student, teacher = scale * torch.randn(
        2, *shape, generator=maker, dtype=torch.float64
    )
    return student.to(dtype).requires_grad_(), teacher.to(dtype)


def everywhere(logits):
    return torch.ones(logits.shape[:-1], dtype=torch.bool)


def some():
    return torch.tensor([[1, 0, 1], [0, 1, 0]]).bool()


def gradient(loss, *tensors):
    return torch.autograd.grad(loss, tensors)


def best(teacher, k, temperature=1.0):
    """The teacher's top k, as a cache holds them."""
    wide = torch.promote_types(teacher.dtype, torch.float32)
    return (teacher.to(wide) / temperature).log_softmax(-1).topk(k)


def topk_loss(student, teacher, k, mask, *, temperature=1.0, tail=True):
    top = best(teacher, k, temperature)
    return topk_kd_loss(
        student,
        top.indices,
        top.values,
        mask,
        temperature=temperature,
        tail=tail,
    )


def hidden(dtype, *, width=5, vocabulary=11):
    """Hidden states (2, 3, width) of two models, and their two heads."""
    torch.manual_seed(4)
    states = torch.randn(2, 2, 3, width, dtype=dtype)
    heads = [
        torch.nn.Linear(width, vocabulary, bias=False, dtype=dtype)
        for _ in range(2)
    ]
    return states[0].requires_grad_(), heads[0], states[1], heads[1]
