"""The exercises of notebook 05, and what they lead to."""

from collections.abc import Callable

import torch
from torch import Tensor

from helpers.exercises.check import Cases, exercise
from helpers.losses import kd_loss, topk_kd_loss


@exercise("05.1", "position t predicts token t + 1; compare that index",
          (([-100, -100, -100, 5, 6, 7, 8], 5), ([2, 3], [4, 5])),
          (([-100, -100, 5, 6], 2), ([], [1, 2])),
          (([-100, 5, 6, -100], 2), ([0], [1])))  # fmt: skip
def split_positions(labels: list, soft_start: int) -> tuple[list, list]:
    """(hard, soft) positions."""
    trained = [i for i in range(1, len(labels)) if labels[i] != -100]
    return (
        [i - 1 for i in trained if i < soft_start],
        [i - 1 for i in trained if i >= soft_start],
    )


def colleague(
    power: int = 2, shift: int = 1, kind: str = "forward", cut: bool = False
) -> Callable[..., Tensor]:
    """A soft loss; every argument is right by default."""

    def loss(student, teacher, labels, temperature=1.0):
        student = student.detach() if cut else student
        mask = labels[:, shift:] != -100
        ends = [z[:, : z.shape[1] - shift] for z in (student, teacher)]
        value = kd_loss(*ends, mask, temperature=temperature, kind=kind)
        return value * temperature ** (power - 2)

    return loss


COLLEAGUES = {
    "Ada": colleague(power=0),
    "Ben": colleague(shift=0),
    "Cem": colleague(),
    "Dea": colleague(kind="reverse"),
    "Eli": colleague(cut=True),
}


@exercise("05.2", "value 0.4438, and a gradient at the first place alone",
          (COLLEAGUES["Cem"], True),
          (COLLEAGUES["Ada"], False),
          (COLLEAGUES["Ben"], False),
          (COLLEAGUES["Dea"], False),
          (COLLEAGUES["Eli"], False))  # fmt: skip
def is_sound(loss) -> bool:
    """Are value and gradient right on the tiny example?"""
    labels = torch.tensor([[-100, 0, -100]])
    student = torch.zeros(1, 3, 2, requires_grad=True)
    teacher = torch.tensor([2.0, 0.0]).expand(1, 3, 2)
    value = loss(student, teacher, labels, 2.0)
    if not value.requires_grad or abs(value.item() - 0.4438) > 0.001:
        return False
    value.backward()
    moved = student.grad.abs().sum(dim=-1) > 0
    return moved.tolist() == [[True, False, False]]


def in_a_bucket() -> Cases:
    """The last ones agree with `topk_kd_loss`."""
    p = torch.tensor([0.5, 0.3, 0.15, 0.05])
    yield (p, p, [0, 1]), 0.0
    half, quarter = torch.tensor([[0.5, 0.5, 0.0], [0.25, 0.25, 0.5]])
    yield (half, quarter, [0]), 0.14384
    generator = torch.Generator().manual_seed(5)
    for kept in ([0], [0, 1], [2, 0, 3]):
        logits = torch.randn(4, generator=generator)
        loss = topk_kd_loss(
            logits[None, None], torch.tensor([[kept]]),
            p[kept].log()[None, None], torch.ones(1, 1, dtype=torch.bool),
        )  # fmt: skip
        yield (p, logits.softmax(-1), kept), loss.item()


@exercise("05.3", "two more numbers: 1 - sum of the kept p, and of q",
          *in_a_bucket())  # fmt: skip
def tail_kl(p: Tensor, q: Tensor, kept: list) -> Tensor:
    """KL over the kept tokens and one tail bucket."""
    p, q = (torch.cat([x[kept], 1 - x[kept].sum()[None]]) for x in (p, q))
    return (torch.xlogy(p, p) - torch.xlogy(p, q)).sum()
