"""Muon: momentum whose update is made orthogonal (Keller Jordan, 2024).

`torch.optim.Muon` computes in bfloat16, which a CPU without bfloat16 units
does fourteen times slower than float32; this one stays in float32.
"""

from collections.abc import Iterable

import torch
from torch import Tensor
from torch.optim import Optimizer

COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # the quintic of the Muon post
ITERATIONS, MOMENTUM, WEIGHT_DECAY = 5, 0.95, 0.01


def orthogonalize(matrix: Tensor) -> Tensor:
    """Newton-Schulz: about U V^T of the matrix's U S V^T."""
    linear, cubic, quintic = COEFFICIENTS
    wide = matrix if matrix.size(0) <= matrix.size(1) else matrix.T
    wide = wide / (wide.norm() + 1e-7)
    for _ in range(ITERATIONS):
        gram = wide @ wide.T
        update = torch.addmm(gram, gram, gram, beta=cubic, alpha=quintic)
        wide = torch.addmm(wide, update, wide, beta=linear)
    return wide if matrix.size(0) <= matrix.size(1) else wide.T


class Muon(Optimizer):
    """For the matrices inside the layers; the rest belongs to AdamW.

    An update has the root mean square of AdamW's (0.2), so that both take
    one learning rate (Liu et al. 2025, "Muon is scalable", equation 4).
    """

    def __init__(self, matrices: Iterable[Tensor], *, lr: float) -> None:
        super().__init__(matrices, {"lr": lr})

    @torch.no_grad()
    def step(self) -> None:
        for group in self.param_groups:
            for weight in group["params"]:
                buffer = self.state[weight].setdefault(
                    "momentum_buffer", torch.zeros_like(weight)
                )
                buffer.lerp_(weight.grad, 1 - MOMENTUM)
                update = orthogonalize(weight.grad.lerp(buffer, MOMENTUM))
                weight.mul_(1 - group["lr"] * WEIGHT_DECAY)
                scale = 0.2 * max(weight.shape) ** 0.5
                weight.add_(update, alpha=-group["lr"] * scale)
