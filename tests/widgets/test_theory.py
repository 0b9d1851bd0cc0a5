"""Notebook 01's widgets: numbers and pictures."""

import math

import pytest
import torch

from helpers.losses import kd_loss
from helpers.widgets.theory import (
    KINDS,
    DivergenceExplorer,
    TemperatureExplorer,
    best_bell,
    read,
    two_peaks,
)


class _Letters:
    """A tokenizer of one letter an id."""

    def decode(self, ids: list[int]) -> str:
        return "".join(chr(ord("a") + number) for number in ids)


@pytest.mark.parametrize("temperature", [0.25, 1.0, 3.0])
def test_read_agrees_with_the_loss(temperature: float) -> None:
    torch.manual_seed(0)
    teacher, student = torch.randn(2, 7, dtype=torch.float64) * 3
    student.requires_grad_()
    loss = kd_loss(
        student[None, None], teacher[None, None], torch.ones(1, 1),
        temperature=temperature,
    )  # fmt: skip
    loss.backward()
    reading = read(teacher, student.detach(), temperature)
    assert temperature**2 * reading.kl == pytest.approx(loss.item())
    assert reading.scaled == pytest.approx(student.grad.norm().item())


def test_temperature_explorer_follows_the_slider() -> None:
    teacher = torch.tensor([5.0, 3.0, 1.0, 0.0, -1.0, -2.0, -9.0])
    explorer = TemperatureExplorer(teacher, torch.zeros(7), _Letters())
    assert explorer.names == ["'a'", "'b'", "'c'", "'d'", "'e'", "'f'"]
    before = explorer.picture.value
    explorer.slider.value = 4.0
    reading = read(teacher, torch.zeros(7), 4.0)
    assert f"{reading.bits:.2f} bits" in explorer.status.value
    assert explorer.picture.value != before
    assert explorer.still().data == explorer.picture.value


def test_best_bell_reverse_pays_for_the_other_peak() -> None:
    bell = best_bell("reverse")
    assert bell.mean == pytest.approx(-2.5, abs=0.05)
    assert bell.value == pytest.approx(-math.log(0.6), abs=0.01)
    assert bell.valley < 0.02


@pytest.mark.parametrize("kind", KINDS)
def test_best_bell_value_is_the_loss_and_a_minimum(kind: str) -> None:
    grid, mass = two_peaks()
    bell = best_bell(kind, beta=0.3, skew=0.2)

    def loss(probabilities: torch.Tensor) -> float:
        return kd_loss(
            probabilities.log()[None, None], mass.log()[None, None],
            torch.ones(1, 1), kind=kind, beta=0.3, skew=0.2,
        ).item()  # fmt: skip

    assert loss(bell.probabilities) == pytest.approx(bell.value)
    for mean in (-2.5, -0.5, 0.0, 2.5):
        for deviation in (0.6, 1.2, 2.5):
            other = -0.5 * ((grid - mean) / deviation) ** 2
            assert loss(other.softmax(-1)) > bell.value - 5e-3


def test_divergence_explorer_offers_only_what_counts() -> None:
    chooser = DivergenceExplorer()
    assert chooser.beta.disabled and chooser.skew.disabled
    before = chooser.picture.value
    chooser.kind.value = "skew"
    assert chooser.beta.disabled and not chooser.skew.disabled
    chooser.kind.value = "jsd"
    assert not chooser.beta.disabled and chooser.skew.disabled
    chooser.beta.value = 0.1
    bell = best_bell("jsd", beta=0.1)
    assert f"deviation <b>{bell.deviation:.2f}</b>" in chooser.status.value
    assert chooser.picture.value != before
