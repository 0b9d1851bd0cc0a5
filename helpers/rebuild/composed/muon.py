"""Muon: momentum whose update is made orthogonal (Keller Jordan, 2024).

`torch.optim.Muon` computes in bfloat16, which a CPU without bfloat16 units
does fourteen times slower than float32; this one stays in float32.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor
from torch.optim import Optimizer

COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # the quintic of the Muon post


def orthogonalize(matrix: Tensor, *, iterations: int = 5) -> Tensor:
    """Newton-Schulz: about U V^T of the matrix's U S V^T."""
    linear, cubic, quintic = COEFFICIENTS
    wide = matrix if matrix.size(0) <= matrix.size(1) else matrix.T
    wide = wide / (wide.norm() + 1e-7)
    for _ in range(iterations):
        gram = wide @ wide.T
        update = torch.addmm(gram, gram, gram, beta=cubic, alpha=quintic)
        wide = torch.addmm(wide, update, wide, beta=linear)
    return wide if matrix.size(0) <= matrix.size(1) else wide.T


class Muon(Optimizer):
    """For the matrices inside the layers; the rest belongs to AdamW.

    An update has the root mean square of AdamW's (0.2), so that both take
    one learning rate (Liu et al. 2025, "Muon is scalable", equation 4).
    """

    def __init__(
        self,
        parameters: Iterable[Tensor],
        *,
        lr: float,
        momentum: float = 0.95,
        weight_decay: float = 0.01,
    ) -> None:
        defaults = {
            "lr": lr,
            "momentum": momentum,
            "weight_decay": weight_decay,
        }
        super().__init__(parameters, defaults)

    @torch.no_grad()
    def step(self) -> None:
        for group in self.param_groups:
            for weight in group["params"]:
                buffer = self.state[weight].setdefault(
                    "momentum_buffer", torch.zeros_like(weight)
                )
                buffer.lerp_(weight.grad, 1 - group["momentum"])
                nesterov = weight.grad.lerp(buffer, group["momentum"])
                scale = 0.2 * max(weight.shape) ** 0.5
                weight.mul_(1 - group["lr"] * group["weight_decay"])
                weight.add_(
                    orthogonalize(nesterov), alpha=-group["lr"] * scale
                )
