"""The worked cases of the exercises in notebook 06."""

import torch

from helpers.exercises.check import Cases, exercise
from helpers.features import hidden_state_loss


@exercise("06.1", hint="scale the student's number by the ratio of depths")
def even_map() -> Cases:
    """`even_map(student_depth, teacher_depth)`: a list of pairs."""
    yield (3, 4), [(1, 1), (2, 3), (3, 4)]
    yield (2, 8), [(1, 4), (2, 8)]
    yield (4, 4), [(1, 1), (2, 2), (3, 3), (4, 4)]
    yield (4, 2), [(1, 1), (2, 1), (3, 2), (4, 2)]


@exercise("06.2", hint="one matrix a pair; no bias")
def projector_parameters() -> Cases:
    """`projector_parameters(pairs, student_width, teacher_width)`."""
    yield ([(3, 4)], 128, 192), 24_576
    yield ([(1, 1), (2, 3), (3, 4)], 128, 192), 73_728
    yield ([(i, i) for i in range(28)], 1024, 2560), 73_400_320


@exercise("06.3", hint="drop the last position, then use labels[:, 1:]")
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


@exercise("06.4", hint="weight * feature = share * main; mind the 0")
def balanced_weight() -> Cases:
    """`balanced_weight(main, feature, share)`, two gradient norms."""
    yield (2.0, 4.0, 0.1), 0.05
    yield (1.0, 0.5, 1.0), 2.0
    yield (3.0, 0.0, 0.5), 0.0
