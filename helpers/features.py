"""Hidden states: reading them, comparing layers, mapping one to another.

Layers are counted as in transformers' `hidden_states`: 0 is the embedding,
i the output of block i, and the last one comes after the final norm.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from helpers.loss_checks import LossError

MAPS = ("last", "even", "cka")
Pairs = tuple[tuple[int, int], ...]  # (student's layer, teacher's layer)


@dataclass(frozen=True)
class FeatureTerm:
    """Which hidden states a student imitates, how, and how much it counts.

    layers: pairs (student's layer, teacher's layer), or the name of a
        `layer_map`.
    kind: of helpers.feature_losses.hidden_state_loss; the pairs' mean is
        taken, so the weight does not depend on their number.
    """

    layers: Pairs | str = "even"
    weight: float = 1.0
    kind: str = "mse"

    def __post_init__(self) -> None:
        if not self.layers:
            raise LossError(
                "no pair of layers: give one or more, or a map's name"
            )
        if not 0 <= self.weight < math.inf:
            raise LossError(
                f"the feature weight is {self.weight}: use 0 or more"
            )

    def pairs(self, student: Any, teacher: Any) -> Pairs:
        """The pairs for two models; LossError for a layer they lack."""
        pairs = self.layers
        if isinstance(pairs, str):
            pairs = layer_map(pairs, depth(student), depth(teacher))
        check_layers(student, [layer for layer, _ in pairs], "student")
        check_layers(teacher, [layer for _, layer in pairs], "teacher")
        return pairs


def depth(model: Any) -> int:
    """The number of blocks, which is also the index of the last layer."""
    return decoder_config(model).num_hidden_layers


def width(model: Any) -> int:
    """The width of the hidden states."""
    return decoder_config(model).hidden_size


def decoder_config(model: Any) -> Any:
    """The part of the configuration that describes the text decoder."""
    return model.config.get_text_config()


def check_layers(model: Any, layers: Sequence[int], whose: str) -> None:
    """Raises LossError for a layer that this model does not have."""
    last = depth(model)
    for layer in layers:
        if not 0 <= layer <= last:
            raise LossError(
                f"the {whose} has no layer {layer}: its layers are 0 (the "
                f"embedding) to {last} (after the final norm)"
            )


@contextlib.contextmanager
def tapped(model: Any, layers: Sequence[int]) -> Iterator[dict[int, Tensor]]:
    """Keep the chosen layers' states of the next forward pass, by hooks.

    `output_hidden_states=True` would keep all of them. Meant for a model
    that takes no gradient: gradient checkpointing runs a block twice.
    """
    check_layers(model, layers, "model")
    base = getattr(model, "get_base_model", lambda: model)()
    decoder = base.get_decoder()
    places = [decoder.embed_tokens, *decoder.layers[:-1], decoder.norm]
    states: dict[int, Tensor] = {}

    def keep(layer: int) -> Any:
        def hook(_: nn.Module, __: Any, output: Any) -> None:
            states[layer] = output if torch.is_tensor(output) else output[0]

        return hook

    hooks = [places[i].register_forward_hook(keep(i)) for i in set(layers)]
    try:
        yield states
    finally:
        for hook in hooks:
            hook.remove()


def linear_cka(first: Tensor, second: Tensor) -> Tensor:
    """Similarity of two sets of states, a scalar from 0 to 1.

    (positions, width) each, same positions, any widths. 1 when one is the
    other up to rotation, scale and shift. Source: Kornblith et al. 2019
    (arXiv:1905.00414), section 3, equation 6 and table 1.
    """
    if first.shape[0] != second.shape[0] or first.shape[0] < 2:
        raise LossError(
            f"states of {first.shape[0]} and {second.shape[0]} positions: "
            "CKA compares two models on the same 2 or more positions"
        )
    first, second = (
        x.double() - x.double().mean(dim=0) for x in (first, second)
    )
    cross = (second.T @ first).square().sum()
    norms = (first.T @ first).norm() * (second.T @ second).norm()
    return cross / norms.clamp(min=torch.finfo(torch.float64).tiny)


def cka_grid(student: Sequence[Tensor], teacher: Sequence[Tensor]) -> Tensor:
    """CKA of every student layer (rows) with every teacher layer (columns).

    Each layer's states are (positions, width).
    """
    rows = [[linear_cka(s, t) for t in teacher] for s in student]
    return torch.stack([torch.stack(row) for row in rows])


@torch.no_grad()
def layer_states(
    model: Any, input_ids: Tensor, attention_mask: Tensor, mask: Tensor
) -> list[Tensor]:
    """States of all layers at the masked-in positions: (positions, width).

    input_ids, attention_mask, mask: (batch, tokens).
    """
    states = model(
        input_ids=input_ids,
        attention_mask=attention_mask,
        output_hidden_states=True,
        use_cache=False,
    ).hidden_states
    return [layer[mask.bool()] for layer in states]


def layer_map(
    kind: str, student_depth: int, teacher_depth: int, grid: Any = None
) -> Pairs:
    """Which student layer imitates which teacher layer.

    - last: only the last of both;
    - even: every student block, spread evenly over the teacher (TinyBERT,
      arXiv:1909.10351, calls it uniform);
    - cka: every student block with the teacher layer it resembles most in
      `grid` (of `cka_grid`), embeddings left out.
    """
    blocks = range(1, student_depth + 1)
    if kind == "last":
        return ((student_depth, teacher_depth),)
    if kind == "even":
        share = teacher_depth / student_depth
        return tuple((s, max(1, round(s * share))) for s in blocks)
    if kind == "cka" and grid is not None:
        return tuple((s, 1 + int(grid[s, 1:].argmax())) for s in blocks)
    raise LossError(
        f"no layer map {kind!r}: use {', '.join(MAPS)}; cka needs the grid "
        "of cka_grid"
    )


class Projectors(nn.Module):
    """One linear map per pair of layers, from student to teacher width.

    Trained with the student, saved beside its checkpoints, and not part of
    the student that is exported.
    """

    def __init__(
        self, pairs: Pairs, student_width: int, teacher_width: int, seed: int
    ) -> None:
        super().__init__()
        maps = [
            nn.Linear(student_width, teacher_width, bias=False) for _ in pairs
        ]
        generator = torch.Generator().manual_seed(seed)
        for linear in maps:
            nn.init.orthogonal_(linear.weight, generator=generator)
        names = [f"{student}_{teacher}" for student, teacher in pairs]
        self.maps = nn.ModuleDict(dict(zip(names, maps, strict=True)))

    def forward(self, states: Tensor, student: int, teacher: int) -> Tensor:
        """(..., student width) to (..., teacher width)."""
        return self.maps[f"{student}_{teacher}"](states)
