"""Widgets of notebook 01: a temperature, and a choice of divergence.

Both compute within a fraction of a second and leave a picture of their
default state through `still()`, for readers without a kernel.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import ipywidgets
import torch
from matplotlib.figure import Figure
from torch import Tensor

from helpers.losses import divergence
from helpers.plots.style import headline, to_png
from helpers.plots.theory import (
    gradient_plot,
    next_token_plot,
    two_peaks_plot,
)
from helpers.widgets.explorer import Explorer

KINDS = ("forward", "reverse", "jsd", "skew")
SHOWN = 6  # tokens in the picture of the temperature
CURVE = torch.logspace(math.log10(0.25), 1.5, 60).tolist()
# The two-peaked teacher: 60% of its mass at -2.5, 40% at 2.5.
PEAKS = ((0.6, -2.5, 0.6), (0.4, 2.5, 0.6))  # weight, mean, width
VALLEY = 1.0  # |x| below this lies between the peaks


@dataclass(frozen=True)
class Reading:
    """What one temperature does to one pair of next-token distributions.

    teacher, student: probabilities (vocab,). bits: the teacher's entropy.
    kl: from teacher to student, nats. gradient, scaled: the norm of the
    divergence's gradient in the student's logits, and T * T times it.
    """

    temperature: float
    teacher: Tensor
    student: Tensor
    bits: float
    kl: float
    gradient: float
    scaled: float


def read(
    teacher_logits: Tensor, student_logits: Tensor, temperature: float
) -> Reading:
    """Entropy, divergence and gradient of one position at a temperature.

    Logits are (vocab,). The gradient of KL(p || q) in the student's logits
    is (q - p) / T (Hinton et al., arXiv:1503.02531, equation 2).
    """
    log_p = (teacher_logits.double() / temperature).log_softmax(dim=-1)
    log_q = (student_logits.double() / temperature).log_softmax(dim=-1)
    p, q = log_p.exp(), log_q.exp()
    gradient = ((q - p) / temperature).norm().item()
    return Reading(
        temperature=temperature,
        teacher=p,
        student=q,
        bits=-torch.xlogy(p, p).sum().item() / math.log(2),
        kl=(p * (log_p - log_q)).nan_to_num(0.0).sum().item(),
        gradient=gradient,
        scaled=temperature**2 * gradient,
    )


class TemperatureExplorer(Explorer):
    """A slider for T over one real position of teacher and student.

    Left the distributions, right the size of the gradient with and without
    T * T, above both the numbers.
    """

    def __init__(
        self, teacher_logits: Tensor, student_logits: Tensor, tokenizer: Any
    ) -> None:
        super().__init__(width=950)
        self.teacher = teacher_logits.detach().cpu()
        self.student = student_logits.detach().cpu()
        self.plain = read(self.teacher, self.student, 1.0)
        self.top = self.plain.teacher.topk(SHOWN).indices
        self.names = [repr(tokenizer.decode([i])) for i in self.top.tolist()]
        self.curve = [read(self.teacher, self.student, t) for t in CURVE]
        self.slider = ipywidgets.FloatSlider(
            value=2.0, min=0.25, max=10.0, step=0.25,
            description="temperature", style={"description_width": "initial"},
        )  # fmt: skip
        self.watch(self.slider)

    def draw(self) -> None:
        """Numbers and picture at the slider's temperature."""
        now = read(self.teacher, self.student, self.slider.value)
        self.status.value = (
            f"T = {now.temperature:g}: entropy <b>{now.bits:.2f} bits</b>, "
            f"KL to the student <b>{now.kl:.3f} nats</b>, gradient "
            f"<b>{now.gradient:.3f}</b> without T², "
            f"<b>{now.scaled:.3f}</b> with it"
        )
        title = (
            f"At T = {now.temperature:g} the teacher's entropy is "
            f"{now.bits:.2f} bits"
        )

        def fill(drawn: Figure) -> None:
            headline(drawn, title)
            left, right = drawn.subplots(1, 2)
            next_token_plot(
                self.names,
                self.plain.teacher[self.top],
                now.teacher[self.top],
                now.student[self.top],
                temperature=now.temperature,
                ax=left,
            )
            gradient_plot(
                CURVE,
                [reading.gradient for reading in self.curve],
                [reading.scaled for reading in self.curve],
                mark=now.temperature,
                ax=right,
            )

        self.picture.value = to_png(fill, size=(9.5, 4.0))


def two_peaks() -> tuple[Tensor, Tensor]:
    """The grid (points,) and the two-peaked teacher's mass on it."""
    grid = torch.linspace(-8, 8, 161, dtype=torch.float64)
    mass = sum(
        weight * (-0.5 * ((grid - mean) / width) ** 2).exp() / width
        for weight, mean, width in PEAKS
    )
    return grid, mass / mass.sum()


@dataclass(frozen=True)
class Bell:
    """The bell curve that a divergence likes best.

    probabilities: mass on the grid (points,), with its mean and standard
    deviation. valley: the share of it that lies between the peaks. value:
    the divergence, nats.
    """

    probabilities: Tensor
    mean: float
    deviation: float
    valley: float
    value: float


def best_bell(kind: str, *, beta: float = 0.5, skew: float = 0.1) -> Bell:
    """The best of some 7,000 bell curves on the grid, for a divergence.

    kind, beta, skew: as in `helpers.losses.kd_loss`. Every mean in steps of
    0.1 and widths from 0.3 to 4 are tried, so no local minimum can fool it.
    """
    grid, teacher = two_peaks()
    widths = torch.logspace(
        math.log10(0.3), math.log10(4.0), 42, dtype=torch.float64
    )
    means = grid.repeat_interleave(len(widths))[:, None]  # (bells, 1)
    spread = widths.repeat(len(grid))[:, None]
    bells = -0.5 * ((grid - means) / spread) ** 2  # (bells, points)
    values = divergence(
        bells, teacher.log().expand_as(bells), temperature=1.0,
        kind=kind, beta=beta, skew=skew,
    )  # fmt: skip
    best = int(values.argmin())
    mass = bells[best].softmax(dim=-1)
    mean = (mass * grid).sum()
    return Bell(
        probabilities=mass,
        mean=mean.item(),
        deviation=(mass * (grid - mean) ** 2).sum().sqrt().item(),
        valley=mass[grid.abs() < VALLEY].sum().item(),
        value=values[best].item(),
    )


class DivergenceExplorer(Explorer):
    """A choice of divergence, and the bell curve it makes of two peaks.

    The sliders for beta and skew are live only where the chosen divergence
    has them.
    """

    def __init__(self, kind: str = "forward") -> None:
        super().__init__(width=760)
        self.grid, self.teacher = two_peaks()
        self.kind = ipywidgets.Dropdown(
            options=KINDS, value=kind, description="divergence"
        )
        self.beta, self.skew = (
            ipywidgets.FloatSlider(
                value=value, min=0.05, max=0.95, step=0.05, description=name
            )
            for name, value in (("beta", 0.5), ("skew", 0.1))
        )
        self.watch(self.kind, self.beta, self.skew)

    def name(self) -> str:
        """The divergence in force, with its setting."""
        kind = self.kind.value
        setting = {
            "jsd": f", beta = {self.beta.value:g}",
            "skew": f", skew = {self.skew.value:g}",
        }
        return kind + setting.get(kind, "")

    def draw(self) -> None:
        """Fit again, and redraw."""
        kind = self.kind.value
        self.beta.disabled = kind != "jsd"
        self.skew.disabled = kind != "skew"
        bell = best_bell(kind, beta=self.beta.value, skew=self.skew.value)
        self.status.value = (
            f"{self.name()}: mean <b>{bell.mean:.1f}</b>, standard "
            f"deviation <b>{bell.deviation:.2f}</b>, divergence "
            f"<b>{bell.value:.3f} nats</b>, <b>{bell.valley:.0%}</b> of the "
            "student in the valley"
        )
        covers = bell.deviation > 1.5
        habit = "covers both peaks" if covers else "settles for one peak"
        title = (
            f"{self.name()}: the student {habit}, with {bell.valley:.0%} of "
            "its mass in the valley"
        )

        def fill(drawn: Figure) -> None:
            headline(drawn, title)
            students = {"student": bell.probabilities}
            two_peaks_plot(
                self.grid, self.teacher, students, ax=drawn.subplots()
            )

        self.picture.value = to_png(fill)
