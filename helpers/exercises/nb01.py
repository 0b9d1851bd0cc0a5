"""The exercises of notebook 01, and what they lead to."""

import math

import torch
from torch import Tensor, tensor
from torch.distributions import Categorical

from helpers.exercises.check import Cases, exercise


@exercise("01.1", "text always works; the other two need one tokenizer",
          ((True, {"text"}), ["response"]),
          ((True, {"text", "logits"}), ["response", "logit"]),
          ((True, {"text", "weights"}), ["response", "logit", "feature"]),
          ((False, {"text", "weights"}), ["response"]),
          ((False, {"text", "logits"}), ["response"]))  # fmt: skip
def what_can_be_copied(same_tokenizer: bool, gives: set) -> list[str]:
    """The methods that are left."""
    asked = {"logit": {"logits", "weights"}, "feature": {"weights"}}
    more = [name for name, any_of in asked.items() if gives & any_of]
    return ["response", *(more if same_tokenizer else [])]


@exercise("01.2", "divide by T, softmax, then minus the sum of p log2 p",
          ((torch.zeros(8), 1.0), 3.0),
          ((tensor([0.0, 0.0]), 5.0), 1.0),
          ((tensor([2.0, 0.0]), 1.0), 0.52707),
          ((tensor([2.0, 0.0]), 2.0), 0.83994),
          ((tensor([9.0, 5.5, 5.0, 2.0, -3.0]), 2.0), 1.17179))  # fmt: skip
def softened_bits(logits: Tensor, temperature: float) -> float:
    """The entropy in bits."""
    nats = Categorical(logits=logits / temperature).entropy()
    return nats.item() / math.log(2)


@exercise("01.3", "mix (1 - skew) * p + skew * q, then kl(q, mixture)",
          ((tensor([0.8, 0.2]), tensor([0.8, 0.2]), 0.1), 0.0),
          ((tensor([0.8, 0.2]), tensor([0.5, 0.5]), 0.0), 0.22314),
          ((tensor([0.8, 0.2]), tensor([0.5, 0.5]), 0.1), 0.17237),
          ((tensor([1.0, 0.0]), tensor([0.0, 1.0]), 0.1), 2.30259)
          )  # fmt: skip
def skew_reverse_kl(p: Tensor, q: Tensor, skew: float) -> Tensor:
    """KL(q || (1 - skew) p + skew q)."""
    mixture = (1 - skew) * p + skew * q
    return (torch.xlogy(q, q) - torch.xlogy(q, mixture)).sum(dim=-1)


def gradients() -> Cases:
    """Of T * T * KL in the student's logits, by torch."""
    generator = torch.Generator().manual_seed(0)
    same = tensor([1.0, 0.0])
    yield (same, same, 3.0), torch.zeros(2)
    for temperature in (1.0, 2.0, 8.0):
        student = torch.randn(5, generator=generator).requires_grad_()
        teacher = torch.randn(5, generator=generator)
        loss = soft_loss()(student, teacher, temperature)
        (gradient,) = torch.autograd.grad(loss, student)
        yield (student.detach(), teacher, temperature), gradient


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


@exercise("01.4", "(q - p) / T, and the loss carries T * T", *gradients())
def kd_gradient(student: Tensor, teacher: Tensor, temperature: float):
    """The gradient of T * T * KL in the student's logits."""
    q, p = ((z / temperature).softmax(dim=-1) for z in (student, teacher))
    return temperature * (q - p)


@exercise("01.5", "compare the hotter one with norm / factor",
          ((1.0, 1 / 16, 4), True),
          ((1.0, 0.97, 4), False),
          ((3.0, 0.8, 2), True),
          ((1.0, 4.0, 4), False))  # fmt: skip
def lost_its_square(norm: float, hotter: float, factor: float) -> bool:
    """Do two gradients' lengths tell that T * T is missing?"""
    return hotter < norm / factor
