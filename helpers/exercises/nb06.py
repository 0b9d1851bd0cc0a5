"""The exercises of notebook 06, and what they lead to."""

import torch
from torch import Tensor

from helpers.exercises.check import exercise
from helpers.features import hidden_state_loss


@exercise("06.1", "scale the student's number by the ratio of depths",
          ((3, 4), [(1, 1), (2, 3), (3, 4)]),
          ((2, 8), [(1, 4), (2, 8)]),
          ((4, 4), [(1, 1), (2, 2), (3, 3), (4, 4)]),
          ((4, 2), [(1, 1), (2, 1), (3, 2), (4, 2)]))  # fmt: skip
def even_map(student_depth: int, teacher_depth: int) -> list[tuple[int, int]]:
    """Pairs (student's layer, teacher's layer)."""
    share = teacher_depth / student_depth
    pairs = range(1, student_depth + 1)
    return [(s, max(1, round(s * share))) for s in pairs]


@exercise("06.2", "one matrix a pair; no bias",
          (([(3, 4)], 128, 192), 24_576),
          (([(1, 1), (2, 3), (3, 4)], 128, 192), 73_728),
          (([(i, i) for i in range(28)], 1024, 2560), 73_400_320)
          )  # fmt: skip
def projector_parameters(
    pairs: list, student_width: int, teacher_width: int
) -> int:
    """How many numbers the projectors hold."""
    return len(pairs) * student_width * teacher_width


STATES = torch.randn(2, 2, 5, 6, generator=torch.Generator().manual_seed(6))


@exercise("06.3", "drop the last position, then use labels[:, 1:]",
          asked=[
              (*STATES, torch.tensor(labels)) for labels in (
                  [[-100, -100, 4, 5, 6], [-100, 4, 5, -100, -100]],
                  [[-100, 4, -100, -100, 5], [-100, 4, 5, 6, 7]],
              )
          ])  # fmt: skip
def cosine_distance(
    student: Tensor, teacher: Tensor, labels: Tensor
) -> Tensor:
    """Mean of 1 - cosine over what is trained; nothing is shifted yet."""
    ends = student[:, :-1], teacher[:, :-1]
    return hidden_state_loss(*ends, labels[:, 1:] != -100, kind="cosine")


@exercise("06.4", "weight * feature = share * main; mind the 0",
          ((2.0, 4.0, 0.1), 0.05),
          ((1.0, 0.5, 1.0), 2.0),
          ((3.0, 0.0, 0.5), 0.0))  # fmt: skip
def balanced_weight(main: float, feature: float, share: float) -> float:
    """The weight that makes two gradients' norms `share` to 1."""
    return share * main / feature if feature else 0.0


def colleagues_states(
    ours: list[Tensor], theirs: list[Tensor], pairs: tuple
) -> tuple[list[Tensor], list[float]]:
    """Her student's states after 200 steps, and the squared error of each.

    They are detached, so that the matrices alone learn.
    """
    losses = torch.zeros(200)
    for own, other in pairs:
        student, teacher = ours[own].detach(), theirs[other]
        matrix = torch.nn.Linear(
            student.shape[-1], teacher.shape[-1], bias=False
        ).to(student.device)
        optimizer = torch.optim.Adam(matrix.parameters(), lr=0.01)
        for step in range(len(losses)):
            error = (matrix(student.float()) - teacher).square().sum()
            loss = error / teacher.square().sum()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses[step] += loss.item() / len(pairs)
    return [states.clone() for states in ours], losses.tolist()


@exercise("06.5", "any pair whose share fell by more than 0.01",
          (([0.4, 0.6], [0.4, 0.6]), False),
          (([0.4, 0.6], [0.4, 0.5]), True),
          (([0.4, 0.6], [0.395, 0.7]), False))  # fmt: skip
def came_closer(before: list[float], after: list[float]) -> bool:
    """Do the shares left unexplained, pair by pair, say so?"""
    return any(b - a > 0.01 for b, a in zip(before, after, strict=True))
