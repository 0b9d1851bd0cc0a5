"""The worked cases of the exercises in notebook 07, what they lead to."""

import torch
from torch import Tensor

from helpers.exercises.check import Cases, exercise
from helpers.losses import kd_loss


def slip(chances: list[float], threshold: float) -> int:
    """The reference of 07.1."""
    places = (i for i, chance in enumerate(chances) if chance < threshold)
    return next(places, -1)


def gradient(z: Tensor, v: Tensor) -> Tensor:
    """The reference of 07.2."""
    q, gap = z.softmax(-1), z.log_softmax(-1) - v.log_softmax(-1)
    return q * (gap - (q * gap).sum())


def repaired_gkd(student, teacher, labels, beta, temperature):
    """The reference of 07.3."""
    mask = labels[:, 1:] != -100
    return kd_loss(
        student[:, :-1], teacher[:, :-1], mask,
        temperature=temperature, kind="jsd", beta=beta,
    )  # fmt: skip


@exercise("07.1", hint="return at the first that is below; after it, -1",
          reference=slip)  # fmt: skip
def first_slip() -> Cases:
    """`first_slip(chances, threshold)`: where the first lower one stands."""
    yield ([0.9, 0.001, 0.5, 0.0], 0.01), 1
    yield ([0.9, 0.5], 0.01), -1
    yield ([0.01], 0.01), -1
    yield ([], 0.5), -1


@exercise("07.2", hint="q * (log q - log p - KL)",
          reference=gradient)  # fmt: skip
def reverse_gradient() -> Cases:
    """`reverse_gradient(z, v)`: of KL(q || p) in the student's logits z."""
    generator = torch.Generator().manual_seed(7)
    same = torch.tensor([1.0, 0.0])
    yield (same, same), torch.zeros(2)
    for width in (2, 5):
        z, v = torch.randn(2, width, generator=generator)
        z.requires_grad_()
        log_q, log_p = z.log_softmax(-1), v.log_softmax(-1)
        loss = (log_q.exp() * (log_q - log_p)).sum()
        (expected,) = torch.autograd.grad(loss, z)
        yield (z.detach(), v), expected


@exercise("07.3", hint="pass temperature=..., and multiply by its square",
          reference=repaired_gkd)  # fmt: skip
def softened_gkd() -> Cases:
    """`softened_gkd(student, teacher, labels, beta, temperature)`."""
    generator = torch.Generator().manual_seed(5)
    student, teacher = torch.randn(2, 2, 4, 6, generator=generator)
    labels = torch.tensor([[-100, -100, 1, 2], [-100, 3, 4, -100]])
    mask = labels[:, 1:] != -100
    for beta, temperature in ((0.0, 1.0), (0.0, 4.0), (1.0, 2.0), (0.5, 4.0)):
        loss = kd_loss(
            student[:, :-1], teacher[:, :-1], mask,
            temperature=temperature, kind="jsd", beta=beta,
        )  # fmt: skip
        yield (student, teacher, labels, beta, temperature), loss.item()
