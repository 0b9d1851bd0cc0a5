"""Logits, masks and teachers' top tokens, for the loss tests."""

import torch

from helpers.losses import topk_kd_loss

INF = float("inf")
SOME = torch.tensor([[1, 0, 1], [0, 1, 0]]).bool()
ALL, NONE = torch.ones(2, 3).bool(), torch.zeros(2, 3).bool()


def pair(seed=0, *, dtype=torch.float32, scale=2.0):
    """Random logits of a student, which wants gradients, and a teacher."""
    maker = torch.Generator().manual_seed(seed)
    student, teacher = scale * torch.randn(
        2, 2, 3, 7, generator=maker, dtype=torch.float64
    )
    return student.to(dtype).requires_grad_(), teacher.to(dtype)


def by_hand(*probabilities):
    """The logits (1, 1, vocab) of these probabilities."""
    return torch.tensor([[probabilities]], dtype=torch.float64).log()


def gradient(loss, *tensors):
    return torch.autograd.grad(loss, tensors)


def best(teacher, k, temperature=1.0):
    """The teacher's top k, ids first, as a cache holds them."""
    wide = torch.promote_types(teacher.dtype, torch.float32)
    top = (teacher.to(wide) / temperature).log_softmax(-1).topk(k)
    return top.indices, top.values


def topk_loss(student, teacher, k, mask, *, temperature=1.0, tail=True):
    return topk_kd_loss(
        student,
        *best(teacher, k, temperature),
        mask,
        temperature=temperature,
        tail=tail,
    )
