"""The worked cases of the exercises in notebook 01."""

import torch

from helpers.exercises.check import Cases, exercise


@exercise("01.1", hint="text always works; the other two need one tokenizer")
def what_can_be_copied() -> Cases:
    """`what_can_be_copied(same_tokenizer, gives)`: the methods left."""
    text, logits, weights = {"text"}, {"text", "logits"}, {"text", "weights"}
    yield (True, text), ["response"]
    yield (True, logits), ["response", "logit"]
    yield (True, weights), ["response", "logit", "feature"]
    yield (False, weights), ["response"]
    yield (False, logits), ["response"]


@exercise("01.2", hint="divide by T, softmax, then minus the sum of p log2 p")
def softened_bits() -> Cases:
    """`softened_bits(logits, temperature)`: entropy in bits."""
    yield (torch.zeros(8), 1.0), 3.0
    yield (torch.tensor([0.0, 0.0]), 5.0), 1.0
    yield (torch.tensor([2.0, 0.0]), 1.0), 0.52707
    yield (torch.tensor([2.0, 0.0]), 2.0), 0.83994
    yield (torch.tensor([9.0, 5.5, 5.0, 2.0, -3.0]), 2.0), 1.17179


@exercise("01.3", hint="mix (1 - skew) * p + skew * q, then kl(q, mixture)")
def skew_reverse_kl() -> Cases:
    """`skew_reverse_kl(p, q, skew)`: KL(q || (1 - skew) p + skew q)."""
    p, q = torch.tensor([0.8, 0.2]), torch.tensor([0.5, 0.5])
    one, other = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0])
    yield (p, p, 0.1), 0.0
    yield (p, q, 0.0), 0.22314
    yield (p, q, 0.1), 0.17237
    yield (one, other, 0.1), 2.30259


@exercise("01.4", hint="(q - p) / T, and the loss carries T * T")
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
