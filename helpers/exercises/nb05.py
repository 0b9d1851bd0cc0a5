"""The worked cases of the exercises in notebook 05."""

import torch

from helpers.exercises.check import Cases, exercise
from helpers.losses import kd_loss, topk_kd_loss


@exercise("05.1", hint="position t predicts token t + 1; compare that index")
def split_positions() -> Cases:
    """`split_positions(labels, soft_start)`: (hard, soft) positions."""
    yield ([-100, -100, -100, 5, 6, 7, 8], 5), ([2, 3], [4, 5])
    yield ([-100, -100, 5, 6], 2), ([], [1, 2])
    yield ([-100, 5, 6, -100], 2), ([0], [1])


@exercise("05.2", hint="bytes of one position, then of one row, then divide")
def largest_batch() -> Cases:
    """`largest_batch(gigabytes, tokens, vocab, copies)` in float32."""
    yield (24, 1024, 262_144, 5), 4
    yield (24, 1024, 151_936, 5), 7
    yield (8, 2048, 262_144, 5), 0
    yield (1, 100, 1000, 5), 500


@exercise("05.3", hint="two more numbers: 1 - sum of the kept p, and of q")
def tail_kl() -> Cases:
    """`tail_kl(p, q, kept)`: KL over the kept tokens and one tail bucket."""
    p = torch.tensor([0.5, 0.3, 0.15, 0.05])
    yield (p, p, [0, 1]), 0.0
    half, quarter = torch.tensor([[0.5, 0.5, 0.0], [0.25, 0.25, 0.5]])
    yield (half, quarter, [0]), 0.14384
    generator = torch.Generator().manual_seed(5)
    for kept in ([0], [0, 1], [2, 0, 3]):
        logits = torch.randn(4, generator=generator)
        loss = topk_kd_loss(
            logits[None, None], torch.tensor([[kept]]),
            p[kept].log()[None, None], torch.ones(1, 1, dtype=torch.bool),
        )  # fmt: skip
        yield (p, logits.softmax(-1), kept), loss.item()


@exercise("05.4", hint="pass temperature=..., and multiply by its square")
def softened_gkd() -> Cases:
    """`softened_gkd(student, teacher, labels, beta, temperature)`."""
    generator = torch.Generator().manual_seed(5)
    student, teacher = torch.randn(2, 2, 4, 6, generator=generator)
    labels = torch.tensor([[-100, -100, 1, 2], [-100, 3, 4, -100]])
    mask = labels[:, 1:] != -100
    for beta, temperature in ((0.0, 1.0), (0.0, 4.0), (1.0, 2.0), (0.5, 4.0)):
        loss = kd_loss(
            student[:, :-1], teacher[:, :-1], mask,
            temperature=temperature, kind="jsd", beta=beta,
        )  # fmt: skip
        yield (student, teacher, labels, beta, temperature), loss.item()
