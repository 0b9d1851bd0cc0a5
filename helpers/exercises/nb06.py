"""The worked cases of the exercises in notebook 06, and what they lead to."""

import torch
from torch import Tensor

from helpers.exercises.check import Cases, exercise
from helpers.features import hidden_state_loss


def spread(student_depth: int, teacher_depth: int) -> list[tuple[int, int]]:
    """The reference of 06.1."""
    share = teacher_depth / student_depth
    pairs = range(1, student_depth + 1)
    return [(s, max(1, round(s * share))) for s in pairs]


def scaffolding(pairs: list, student_width: int, teacher_width: int) -> int:
    """The reference of 06.2."""
    return len(pairs) * student_width * teacher_width


def turned(student: Tensor, teacher: Tensor, labels: Tensor) -> Tensor:
    """The reference of 06.3."""
    ends = student[:, :-1], teacher[:, :-1]
    return hidden_state_loss(*ends, labels[:, 1:] != -100, kind="cosine")


def balanced(main: float, feature: float, share: float) -> float:
    """The reference of 06.4."""
    return share * main / feature if feature else 0.0


@exercise("06.1", hint="scale the student's number by the ratio of depths",
          reference=spread)  # fmt: skip
def even_map() -> Cases:
    """`even_map(student_depth, teacher_depth)`: a list of pairs."""
    yield (3, 4), [(1, 1), (2, 3), (3, 4)]
    yield (2, 8), [(1, 4), (2, 8)]
    yield (4, 4), [(1, 1), (2, 2), (3, 3), (4, 4)]
    yield (4, 2), [(1, 1), (2, 1), (3, 2), (4, 2)]


@exercise("06.2", hint="one matrix a pair; no bias",
          reference=scaffolding)  # fmt: skip
def projector_parameters() -> Cases:
    """`projector_parameters(pairs, student_width, teacher_width)`."""
    yield ([(3, 4)], 128, 192), 24_576
    yield ([(1, 1), (2, 3), (3, 4)], 128, 192), 73_728
    yield ([(i, i) for i in range(28)], 1024, 2560), 73_400_320


@exercise("06.3", hint="drop the last position, then use labels[:, 1:]",
          reference=turned)  # fmt: skip
def cosine_distance() -> Cases:
    """`cosine_distance(student, teacher, labels)`, nothing shifted yet."""
    generator = torch.Generator().manual_seed(6)
    student, teacher = torch.randn(2, 2, 5, 6, generator=generator)
    for labels in (
        torch.tensor([[-100, -100, 4, 5, 6], [-100, 4, 5, -100, -100]]),
        torch.tensor([[-100, 4, -100, -100, 5], [-100, 4, 5, 6, 7]]),
    ):
        mask = labels[:, 1:] != -100
        loss = hidden_state_loss(
            student[:, :-1], teacher[:, :-1], mask, kind="cosine"
        )
        yield (student, teacher, labels), loss.item()


@exercise("06.4", hint="weight * feature = share * main; mind the 0",
          reference=balanced)  # fmt: skip
def balanced_weight() -> Cases:
    """`balanced_weight(main, feature, share)`, two gradient norms."""
    yield (2.0, 4.0, 0.1), 0.05
    yield (1.0, 0.5, 1.0), 2.0
    yield (3.0, 0.0, 0.5), 0.0


def fell(before: list[float], after: list[float]) -> bool:
    """The reference of 06.5."""
    return any(b - a > 0.01 for b, a in zip(before, after, strict=True))


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


@exercise("06.5", hint="any pair whose share fell by more than 0.01",
          reference=fell)  # fmt: skip
def came_closer() -> Cases:
    """`came_closer(before, after)`: shares left unexplained, pair by pair."""
    yield ([0.4, 0.6], [0.4, 0.6]), False
    yield ([0.4, 0.6], [0.4, 0.5]), True
    yield ([0.4, 0.6], [0.395, 0.7]), False
