"""The worked cases of the exercises in notebook 08, and the faulty losses."""

from collections.abc import Sequence
from typing import Any

import torch

from helpers.exercises.check import Cases, exercise
from helpers.losses import kd_loss

FAULTS = (
    "T squared missing",
    "student read one position late",
    "mask one position early",
    "teacher and student exchanged",
    "student detached",
)


class Told(dict[str, str]):
    """A dictionary that does not give itself away in a message."""

    def __repr__(self) -> str:
        return "what the curves tell"


def sound(student: Any, teacher: Any, labels: Any, temperature: float) -> Any:
    """The loss of notebook 05, and the reference of 08.4."""
    mask = labels[:, 1:] != -100
    return kd_loss(
        student[:, :-1], teacher[:, :-1], mask, temperature=temperature
    )


def lettered() -> dict[str, Any]:
    """Five colleagues' losses; who reads this has found the answers."""

    def no_square(student, teacher, labels, temperature):
        return sound(student, teacher, labels, temperature) / temperature**2

    def late(student, teacher, labels, temperature):
        mask = labels[:, 1:] != -100
        return kd_loss(
            student[:, 1:], teacher[:, :-1], mask, temperature=temperature
        )

    def early(student, teacher, labels, temperature):
        return kd_loss(
            student, teacher, labels != -100, temperature=temperature
        )

    def exchanged(student, teacher, labels, temperature):
        mask = labels[:, 1:] != -100
        return kd_loss(
            student[:, :-1], teacher[:, :-1], mask,
            temperature=temperature, kind="reverse",
        )  # fmt: skip

    def detached(student, teacher, labels, temperature):
        loss = sound(student.detach(), teacher, labels, temperature)
        return loss + 0 * student.sum()

    faulty = (no_square, late, early, exchanged, detached)
    return {letter: faulty["CEABD".index(letter)] for letter in "ABCDE"}


TRUTH = Told({letter: FAULTS["CEABD".index(letter)] for letter in "ABCDE"})


def holm(p_values: Sequence[float]) -> list[float]:
    """The reference of 08.1."""
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    corrected, least = [0.0] * len(order), 0.0
    for rank, i in enumerate(order):
        least = max(least, min(1.0, (len(order) - rank) * p_values[i]))
        corrected[i] = least
    return corrected


def judgement(low: float, high: float, p_value: float, margin: float) -> str:
    """The reference of 08.2."""
    if p_value < 0.05:
        return "better" if low > 0 else "worse"
    return "same" if -margin < low and high < margin else "open"


@exercise("08.1", hint="multiply the smallest by n, the next by n - 1, ...; "
          "never let one fall below the one before it, or rise above 1",
          reference=holm)  # fmt: skip
def holm_corrected() -> Cases:
    """`holm_corrected(p_values)`: in the order in which they came."""
    yield [0.01], [0.01]
    yield [0.04, 0.01], [0.04, 0.02]
    yield [0.03, 0.02, 0.9, 0.001], [0.06, 0.06, 0.9, 0.004]
    yield [0.5, 0.6], [1.0, 1.0]


@exercise("08.2", hint="first p; where it says nothing, is the interval "
          "inside -margin to margin?", reference=judgement)  # fmt: skip
def judged() -> Cases:
    """`judged(low, high, p_value, margin)`: better, worse, same or open."""
    yield (0.4, 3.0, 0.01, 2.0), "better"
    yield (-3.0, -0.4, 0.01, 2.0), "worse"
    yield (-0.5, 1.2, 0.4, 2.0), "same"
    yield (-0.5, 4.0, 0.2, 2.0), "open"
    yield (0.1, 2.5, 0.2, 2.0), "open"
    yield (-2.5, 1.0, 0.3, 2.0), "open"


@exercise("08.3", hint="compare each with the sound one: where does its loss "
          "start, does the held-out KL fall, and does the first token's?",
          reference=lambda: dict(TRUTH))  # fmt: skip
def diagnosis() -> Cases:
    """`diagnosis()`: the fault of each letter."""
    yield (), TRUTH


@exercise("08.4", hint="two faults: labels[:, 1:], and a factor too many",
          reference=sound)  # fmt: skip
def repaired() -> Cases:
    """`repaired(student, teacher, labels, temperature)`: as in notebook 05."""
    generator = torch.Generator().manual_seed(5)
    student, teacher = torch.randn(2, 2, 5, 6, generator=generator)
    labels = torch.tensor([[-100, -100, 1, 2, 3], [-100, 3, 4, -100, -100]])
    for temperature in (1.0, 2.0):
        case = (student, teacher, labels, temperature)
        yield case, sound(*case).item()
