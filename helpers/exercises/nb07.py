"""The exercises of notebook 07, and what they lead to."""

import torch
from torch import Tensor

from helpers.exercises.check import Cases, exercise
from helpers.losses import kd_loss

LOGITS = torch.randn(2, 2, 4, 6, generator=torch.Generator().manual_seed(5))
LABELS = torch.tensor([[-100, -100, 1, 2], [-100, 3, 4, -100]])


@exercise("07.1", "return at the first that is below; after it, -1",
          (([0.9, 0.001, 0.5, 0.0], 0.01), 1),
          (([0.9, 0.5], 0.01), -1),
          (([0.01], 0.01), -1),
          (([], 0.5), -1))  # fmt: skip
def first_slip(chances: list[float], threshold: float) -> int:
    """Where the first lower one stands."""
    places = (i for i, chance in enumerate(chances) if chance < threshold)
    return next(places, -1)


def gradients() -> Cases:
    """Of KL(q || p) in the student's logits, by torch."""
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


@exercise("07.2", "q * (log q - log p - KL)", *gradients())
def reverse_gradient(z: Tensor, v: Tensor) -> Tensor:
    """The gradient of KL(q || p) in the student's logits z."""
    q, gap = z.softmax(-1), z.log_softmax(-1) - v.log_softmax(-1)
    return q * (gap - (q * gap).sum())


@exercise("07.3", "pass temperature=..., and multiply by its square",
          asked=[
              (*LOGITS, LABELS, *setting)
              for setting in ((0.0, 1.0), (0.0, 4.0), (1.0, 2.0), (0.5, 4.0))
          ])  # fmt: skip
def softened_gkd(student, teacher, labels, beta, temperature) -> Tensor:
    """GKD's loss with a temperature."""
    mask = labels[:, 1:] != -100
    return kd_loss(
        student[:, :-1], teacher[:, :-1], mask,
        temperature=temperature, kind="jsd", beta=beta,
    )  # fmt: skip
