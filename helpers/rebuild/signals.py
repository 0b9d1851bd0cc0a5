"""What a student can be told at a position: the arms of notebook 08.

Nearly every arm is a target distribution over the next token, and a
divergence from it. The rest of a run is the same for all of them.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from helpers.losses import (
    LOG_ZERO,
    divergence,
    hidden_state_loss,
    log_probabilities,
    topk_kd_loss,
)
from helpers.rebuild.arms import SIGNALS, Signal  # noqa: F401


def target(
    signal: Signal, logits: Tensor, generator: torch.Generator
) -> Tensor:
    """The teacher's logits (positions, vocab) as what is to be matched.

    Log-probabilities at the signal's temperature; made once a run, so that
    lots and draws stay what they are.
    """
    logs = log_probabilities(logits, signal.temperature)
    if signal.permuted:
        others = logs.argsort(dim=-1, descending=True)[:, 1:]
        lots = torch.rand(others.shape, generator=generator).argsort(dim=-1)
        moved = logs.gather(-1, others.gather(-1, lots))
        logs = logs.scatter(-1, others, moved)
    if signal.draws:
        drawn = torch.multinomial(
            logs.exp(), signal.draws, replacement=True, generator=generator
        )
        share = torch.full(drawn.shape, 1 / signal.draws)
        counts = torch.zeros_like(logs).scatter_add(-1, drawn, share)
        logs = counts.log().clamp(min=LOG_ZERO)
    return logs


def signal_loss(
    signal: Signal,
    logits: Tensor,
    tokens: Tensor,
    soft: Tensor,
    taught: Tensor | None,
    smoothing: float = 0.0,
) -> Tensor:
    """Mean over all positions.

    logits: (positions, vocab), the student's. tokens: the text's next ones.
    soft: where the teacher wrote them; its template wrote the others, and
    they are learned as text. taught: `target` of the soft positions.
    """
    hard = functional.cross_entropy(
        logits[~soft], tokens[~soft], reduction="sum"
    )
    told, temperature = logits[soft], signal.temperature
    if taught is None:
        loss = temperature**2 * functional.cross_entropy(
            told / temperature, tokens[soft], reduction="sum",
            label_smoothing=smoothing,
        )  # fmt: skip
    elif signal.top_k:
        top = taught.topk(signal.top_k)
        everywhere = torch.ones(1, len(told), dtype=torch.bool)
        loss = len(told) * topk_kd_loss(
            told[None], top.indices[None], top.values[None], everywhere,
            temperature=temperature, tail=signal.tail,
        )  # fmt: skip
    else:
        loss = temperature**2 * divergence(
            told, temperature * taught, temperature=temperature,
            kind=signal.kind,
        ).sum()  # fmt: skip
    return (hard + loss) / len(tokens)


def states_loss(
    signal: Signal,
    states: tuple[Tensor, ...],
    taught: dict[tuple[int, int], Tensor],
    mask: Tensor,
    projectors: Any,
) -> Tensor:
    """Mean over the pairs of layers; states: all layers of the student."""
    losses = [
        hidden_state_loss(
            states[student][:, :-1],
            theirs,
            mask,
            projector=None
            if signal.states == "relation"
            else lambda x, s=student, t=teacher: projectors(x, s, t),
            kind=signal.states,
        )
        for (student, teacher), theirs in taught.items()
    ]
    return torch.stack(losses).mean()


def pull(
    main: Tensor, more: Tensor, weights: list, maps: list, dose: float
) -> None:
    """Backward of main + w * more: w makes its gradient `dose` times as long.

    weights: the student's. maps: the projectors', which only `more` reaches.
    """
    ours = torch.autograd.grad(main, weights, retain_graph=True)
    theirs = torch.autograd.grad(more, [*weights, *maps])
    first, second = (
        torch.stack([g.norm() for g in part]).norm()
        for part in (ours, theirs[: len(weights)])
    )
    scale = dose * first / second.clamp(min=1e-12)
    for weight, one, other in zip(weights, ours, theirs, strict=False):
        weight.grad = one + scale * other
    for weight, other in zip(maps, theirs[len(weights) :], strict=True):
        weight.grad = other
