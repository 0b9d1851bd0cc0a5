"""The exercises of notebook 08, and the faulty losses."""

from collections.abc import Sequence
from typing import Any

import torch

from helpers.exercises.check import exercise
from helpers.exercises.nb05 import colleague
from helpers.losses import kd_loss

FAULTS = (
    "T squared missing",
    "student read one position late",
    "mask one position early",
    "teacher and student exchanged",
    "student detached",
)
LOGITS = torch.randn(2, 2, 5, 6, generator=torch.Generator().manual_seed(5))
LABELS = torch.tensor([[-100, -100, 1, 2, 3], [-100, 3, 4, -100, -100]])

sound = colleague()  # the loss of notebook 05


class Told(dict[str, str]):
    """A dictionary that does not give itself away in a message."""

    def __repr__(self) -> str:
        return "what the curves tell"


def lettered() -> dict[str, Any]:
    """Five colleagues' losses; who reads this has found the answers."""

    def late(student, teacher, labels, temperature):
        mask = labels[:, 1:] != -100
        return kd_loss(
            student[:, 1:], teacher[:, :-1], mask, temperature=temperature
        )

    def detached(student, teacher, labels, temperature):
        loss = sound(student.detach(), teacher, labels, temperature)
        return loss + 0 * student.sum()

    faulty = (
        colleague(power=0),
        late,
        colleague(shift=0),
        colleague(kind="reverse"),
        detached,
    )
    return {letter: faulty["CEABD".index(letter)] for letter in "ABCDE"}


TRUTH = Told({letter: FAULTS["CEABD".index(letter)] for letter in "ABCDE"})


@exercise("08.1", "multiply the smallest by n, the next by n - 1, ...; "
          "never let one fall below the one before it, or rise above 1",
          ([0.01], [0.01]),
          ([0.04, 0.01], [0.04, 0.02]),
          ([0.03, 0.02, 0.9, 0.001], [0.06, 0.06, 0.9, 0.004]),
          ([0.5, 0.6], [1.0, 1.0]))  # fmt: skip
def holm_corrected(p_values: Sequence[float]) -> list[float]:
    """Holm's p-values, in the order in which they came."""
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    corrected, least = [0.0] * len(order), 0.0
    for rank, i in enumerate(order):
        least = max(least, min(1.0, (len(order) - rank) * p_values[i]))
        corrected[i] = least
    return corrected


@exercise("08.2", "first p; where it says nothing, is the interval "
          "inside -margin to margin?",
          ((0.4, 3.0, 0.01, 2.0), "better"),
          ((-3.0, -0.4, 0.01, 2.0), "worse"),
          ((-0.5, 1.2, 0.4, 2.0), "same"),
          ((-0.5, 4.0, 0.2, 2.0), "open"),
          ((0.1, 2.5, 0.2, 2.0), "open"),
          ((-2.5, 1.0, 0.3, 2.0), "open"))  # fmt: skip
def judged(low: float, high: float, p_value: float, margin: float) -> str:
    """better, worse, same or open."""
    if p_value < 0.05:
        return "better" if low > 0 else "worse"
    return "same" if -margin < low and high < margin else "open"


@exercise("08.3", "compare each with the sound one: where does its loss "
          "start, does the held-out KL fall, and does the first token's?",
          ((), TRUTH))  # fmt: skip
def diagnosis() -> dict[str, str]:
    """The fault of each letter."""
    return dict(TRUTH)


@exercise("08.4", "two faults: labels[:, 1:], and a factor too many",
          asked=[(*LOGITS, LABELS, 1.0), (*LOGITS, LABELS, 2.0)]
          )  # fmt: skip
def repaired(student, teacher, labels, temperature) -> torch.Tensor:
    """As in notebook 05."""
    return sound(student, teacher, labels, temperature)
