"""The worked cases of the exercises in notebook 01, what they lead to."""

import math

import torch
from torch import Tensor
from torch.distributions import Categorical

from helpers.exercises.check import Cases, exercise


def methods(same_tokenizer: bool, gives: set) -> list[str]:
    """The reference of 01.1."""
    asked = {"logit": {"logits", "weights"}, "feature": {"weights"}}
    more = [name for name, any_of in asked.items() if gives & any_of]
    return ["response", *(more if same_tokenizer else [])]


def entropy_at(logits: Tensor, temperature: float) -> float:
    """The reference of 01.2."""
    nats = Categorical(logits=logits / temperature).entropy()
    return nats.item() / math.log(2)


def skewed(p: Tensor, q: Tensor, skew: float) -> Tensor:
    """The reference of 01.3."""
    mixture = (1 - skew) * p + skew * q
    return (torch.xlogy(q, q) - torch.xlogy(q, mixture)).sum(dim=-1)


def closed_form(student: Tensor, teacher: Tensor, temperature: float):
    """The reference of 01.4."""
    q, p = ((z / temperature).softmax(dim=-1) for z in (student, teacher))
    return temperature * (q - p)


def silent(norm: float, hotter: float, factor: float) -> bool:
    """The reference of 01.5."""
    return hotter < norm / factor


def soft_loss(square: bool = True, entropy: bool = True, warm: bool = True):
    """A colleague's loss of logits at T; each switch can be off."""

    def loss(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
        log_q = (student / temperature).log_softmax(dim=-1)
        log_p = (teacher / (temperature if warm else 1)).log_softmax(dim=-1)
        total = (log_p.exp() * (log_p * entropy - log_q)).sum()
        return total * temperature ** (2 * square)

    return loss


COLLEAGUES = {
    "Ada": soft_loss(),
    "Ben": soft_loss(square=False),
    "Cem": soft_loss(entropy=False),
    "Dea": soft_loss(warm=False),
}


@exercise("01.1", hint="text always works; the other two need one tokenizer",
          reference=methods)  # fmt: skip
def what_can_be_copied() -> Cases:
    """`what_can_be_copied(same_tokenizer, gives)`: the methods left."""
    text, logits, weights = {"text"}, {"text", "logits"}, {"text", "weights"}
    yield (True, text), ["response"]
    yield (True, logits), ["response", "logit"]
    yield (True, weights), ["response", "logit", "feature"]
    yield (False, weights), ["response"]
    yield (False, logits), ["response"]


@exercise("01.2", hint="divide by T, softmax, then minus the sum of p log2 p",
          reference=entropy_at)  # fmt: skip
def softened_bits() -> Cases:
    """`softened_bits(logits, temperature)`: entropy in bits."""
    yield (torch.zeros(8), 1.0), 3.0
    yield (torch.tensor([0.0, 0.0]), 5.0), 1.0
    yield (torch.tensor([2.0, 0.0]), 1.0), 0.52707
    yield (torch.tensor([2.0, 0.0]), 2.0), 0.83994
    yield (torch.tensor([9.0, 5.5, 5.0, 2.0, -3.0]), 2.0), 1.17179


@exercise("01.3", hint="mix (1 - skew) * p + skew * q, then kl(q, mixture)",
          reference=skewed)  # fmt: skip
def skew_reverse_kl() -> Cases:
    """`skew_reverse_kl(p, q, skew)`: KL(q || (1 - skew) p + skew q)."""
    p, q = torch.tensor([0.8, 0.2]), torch.tensor([0.5, 0.5])
    one, other = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0])
    yield (p, p, 0.1), 0.0
    yield (p, q, 0.0), 0.22314
    yield (p, q, 0.1), 0.17237
    yield (one, other, 0.1), 2.30259


@exercise("01.4", hint="(q - p) / T, and the loss carries T * T",
          reference=closed_form)  # fmt: skip
def kd_gradient() -> Cases:
    """`kd_gradient(student, teacher, temperature)`: of T * T * KL."""
    generator = torch.Generator().manual_seed(0)
    same = torch.tensor([1.0, 0.0])
    yield (same, same, 3.0), torch.zeros(2)
    for temperature in (1.0, 2.0, 8.0):
        student = torch.randn(5, generator=generator).requires_grad_()
        teacher = torch.randn(5, generator=generator)
        log_q = (student / temperature).log_softmax(dim=-1)
        log_p = (teacher / temperature).log_softmax(dim=-1)
        loss = temperature**2 * (log_p.exp() * (log_p - log_q)).sum()
        (gradient,) = torch.autograd.grad(loss, student)
        yield (student.detach(), teacher, temperature), gradient


@exercise("01.5", hint="compare the hotter one with norm / factor",
          reference=silent)  # fmt: skip
def lost_its_square() -> Cases:
    """`lost_its_square(norm, hotter, factor)`: two gradients' lengths."""
    yield (1.0, 1 / 16, 4), True
    yield (1.0, 0.97, 4), False
    yield (3.0, 0.8, 2), True
    yield (1.0, 4.0, 4), False
