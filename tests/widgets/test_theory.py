"""Notebook 01's widgets: numbers and pictures."""

import math
from itertools import product
from types import SimpleNamespace

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


def one_loss(student, teacher, **options):
    """kd_loss of one position."""
    rows = student[None, None], teacher[None, None], torch.ones(1, 1)
    return kd_loss(*rows, **options)


@pytest.mark.parametrize("temperature", [0.25, 1.0, 3.0])
def test_read_agrees_with_the_loss(temperature: float) -> None:
    torch.manual_seed(0)
    teacher, student = torch.randn(2, 7, dtype=torch.float64) * 3
    student.requires_grad_()
    loss = one_loss(student, teacher, temperature=temperature)
    loss.backward()
    reading = read(teacher, student.detach(), temperature)
    assert temperature**2 * reading.kl == pytest.approx(loss.item())
    assert reading.scaled == pytest.approx(student.grad.norm().item())


def test_temperature_explorer_follows_the_slider() -> None:
    teacher = torch.tensor([5.0, 3.0, 1.0, 0.0, -1.0, -2.0, -9.0])
    letters = SimpleNamespace(decode=lambda ids: chr(ord("a") + ids[0]))
    explorer = TemperatureExplorer(teacher, torch.zeros(7), letters)
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
        options = {"kind": kind, "beta": 0.3, "skew": 0.2}
        return one_loss(probabilities.log(), mass.log(), **options).item()

    assert loss(bell.probabilities) == pytest.approx(bell.value)
    for mean, width in product((-2.5, -0.5, 0.0, 2.5), (0.6, 1.2, 2.5)):
        other = -0.5 * ((grid - mean) / width) ** 2
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
