"""The sliders of notebook 01: a temperature, and a choice of divergence."""

import math
from dataclasses import dataclass
from typing import Any

import ipywidgets
import torch
from matplotlib.figure import Figure
from torch import Tensor

from helpers.losses import KINDS, divergence
from helpers.plots.style import headline
from helpers.plots.theory import gradient_plot, next_token_plot, two_peaks_plot
from helpers.widgets.explorer import Explorer

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
    bits = -torch.xlogy(p, p).sum().item() / math.log(2)
    kl = (p * (log_p - log_q)).nan_to_num(0.0).sum().item()
    gradient = ((q - p) / temperature).norm().item()
    return Reading(p, q, bits, kl, gradient, temperature**2 * gradient)


class TemperatureExplorer(Explorer):
    """A slider for T over both models' logits (vocab,) at one position."""

    def __init__(
        self, teacher_logits: Tensor, student_logits: Tensor, tokenizer: Any
    ) -> None:
        super().__init__(size=(9.5, 4.0))
        self.logits = teacher_logits.cpu(), student_logits.cpu()
        self.plain = read(*self.logits, 1.0).teacher
        self.top = self.plain.topk(SHOWN).indices
        self.names = [repr(tokenizer.decode([i])) for i in self.top.tolist()]
        curve = [read(*self.logits, t) for t in CURVE]
        self.norms = [r.gradient for r in curve], [r.scaled for r in curve]
        self.slider = ipywidgets.FloatSlider(
            value=2.0, min=0.25, max=10.0, step=0.25,
            description="temperature", style={"description_width": "initial"},
        )  # fmt: skip
        self.watch(self.slider)

    def draw(self) -> None:
        """Read at the slider's temperature, and redraw."""
        self.now = read(*self.logits, self.slider.value)
        super().draw()

    def words(self) -> str:
        """Entropy, divergence and gradient."""
        return (
            f"T = {self.slider.value:g}: entropy <b>{self.now.bits:.2f} "
            f"bits</b>, KL to the student <b>{self.now.kl:.3f} nats</b>, "
            f"gradient <b>{self.now.gradient:.3f}</b> without T², "
            f"<b>{self.now.scaled:.3f}</b> with it"
        )

    def paint(self, drawn: Figure) -> None:
        """The distributions, and the gradient's norm over T."""
        t, now = self.slider.value, self.now
        title = f"At T = {t:g} the teacher's entropy is {now.bits:.2f} bits"
        headline(drawn, title)
        left, right = drawn.subplots(1, 2)
        shown = [p[self.top] for p in (self.plain, now.teacher, now.student)]
        next_token_plot(self.names, *shown, temperature=t, ax=left)
        gradient_plot(CURVE, *self.norms, mark=t, ax=right)


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
    mean = (mass * grid).sum().item()
    deviation = (mass * (grid - mean) ** 2).sum().sqrt().item()
    valley = mass[grid.abs() < VALLEY].sum().item()
    return Bell(mass, mean, deviation, valley, values[best].item())


class DivergenceExplorer(Explorer):
    """A choice of divergence, and the bell curve it makes of two peaks.

    The sliders for beta and skew are live only where the chosen divergence
    has them.
    """

    def __init__(self, kind: str = "forward") -> None:
        super().__init__()
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
        self.settings = {"jsd": self.beta, "skew": self.skew}
        self.watch(self.kind, self.beta, self.skew)

    def name(self) -> str:
        """The divergence in force, with its setting."""
        kind = self.kind.value
        if kind not in self.settings:
            return kind
        setting = self.settings[kind]
        return f"{kind}, {setting.description} = {setting.value:g}"

    def draw(self) -> None:
        """Fit again, and redraw."""
        kind = self.kind.value
        for name, slider in self.settings.items():
            slider.disabled = kind != name
        self.bell = best_bell(kind, beta=self.beta.value, skew=self.skew.value)
        super().draw()

    def words(self) -> str:
        """The fitted bell curve in numbers."""
        return (
            f"{self.name()}: mean <b>{self.bell.mean:.1f}</b>, standard "
            f"deviation <b>{self.bell.deviation:.2f}</b>, divergence "
            f"<b>{self.bell.value:.3f} nats</b>, "
            f"<b>{self.bell.valley:.0%}</b> of the student in the valley"
        )

    def paint(self, drawn: Figure) -> None:
        """Both densities."""
        share = f"{self.bell.valley:.0%} of the student lies in the valley"
        headline(drawn, f"{self.name()}: {share}")
        students = {"student": self.bell.probabilities}
        two_peaks_plot(self.grid, self.teacher, students, ax=drawn.subplots())
