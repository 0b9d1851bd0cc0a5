"""Hidden states: losses between two models', and which layers to compare.

Layers are counted as in transformers' `hidden_states`: 0 is the embedding,
i the output of block i, and the last one comes after the final norm.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from helpers import CourseError

MAPS = ("last", "even", "cka")
FEATURE_KINDS = ("mse", "cosine", "relation")
RELATION_TEMPERATURE = 0.1  # cosines lie in [-1, 1]: too flat as logits
SMALL = 1e-12

Pairs = tuple[tuple[int, int], ...]  # (student's layer, teacher's layer)
Projector = Callable[[Tensor], Tensor]


class LossError(CourseError):
    """Input from which no loss can be computed; says what to change."""


def hidden_state_loss(
    student_hidden: Tensor,
    teacher_hidden: Tensor,
    mask: Tensor,
    *,
    projector: Projector | None = None,
    kind: str = "mse",
) -> Tensor:
    """How far the student's states are from the teacher's, a scalar.

    States are (batch, tokens, width), each with its own width; `mask` is
    (batch, tokens), boolean or 0/1. With an empty mask the loss is 0.
    `projector` maps the student's width to the teacher's. `kind` is one of
    - mse: the squared error over the teacher's mean square (FitNets,
      arXiv:1412.6550, made free of scale): 1 means no better than zeros;
    - cosine: 1 - cosine of the angle, blind to length (DistilBERT,
      arXiv:1910.01108);
    - relation: which positions of a row resemble each other. Needs no
      projector: only similarities are compared (`relation_loss`).

    Raises LossError for anything that does not fit together, and for NaN.
    """
    mask = checked_mask(mask, student_hidden)
    if kind not in FEATURE_KINDS:
        kinds = " or ".join(FEATURE_KINDS)
        raise LossError(f"unknown kind {kind!r}: use {kinds}")
    if kind == "relation":
        return relation_loss(student_hidden, teacher_hidden, mask)
    student = student_hidden[mask]
    student = widen(student if projector is None else projector(student))
    teacher = widen(teacher_hidden.detach()[mask])
    if student.shape != teacher.shape:
        raise LossError(
            f"the student's states are {student.shape[-1]} wide and the "
            f"teacher's {teacher.shape[-1]}: give a projector between the "
            'two, or use kind="relation", which needs none'
        )
    if kind == "mse":
        size = teacher.square().sum().clamp(min=SMALL)
        return finite((student - teacher).square().sum() / size)
    distances = 1 - functional.cosine_similarity(student, teacher, dim=-1)
    return finite(distances.sum() / mask.sum().clamp(min=1))


def relation_loss(
    student_states: Tensor, teacher_states: Tensor, mask: Tensor
) -> Tensor:
    """KL between the two models' similarities of positions, a scalar.

    Every masked-in position asks: which others of this row am I like? The
    answer is a softmax over cosines at RELATION_TEMPERATURE, without the
    position itself. Neither width, rotation nor scale of a space changes
    it. After MiniLM (arXiv:2002.10957, section 3.2), which compares scaled
    dot products of values: pass values to get its value relation.
    """
    itself = torch.eye(mask.shape[1], dtype=torch.bool, device=mask.device)
    pairs = mask[:, :, None] & mask[:, None, :] & ~itself
    related = pairs.any(dim=-1)  # a row with one position has no relations
    student = relations(student_states, pairs)[related]
    teacher = relations(teacher_states.detach(), pairs)[related]
    divergences = (teacher.exp() * (teacher - student)).sum(dim=-1)
    return finite(divergences.sum() / max(len(divergences), 1))


def relations(states: Tensor, pairs: Tensor) -> Tensor:
    """(batch, tokens, width) to log-probabilities (batch, tokens, tokens)."""
    unit = functional.normalize(widen(states), dim=-1)
    cosines = unit @ unit.transpose(1, 2)
    cosines = cosines.masked_fill(~pairs, -1e30)  # not -inf: 0 * inf is NaN
    return (cosines / RELATION_TEMPERATURE).log_softmax(dim=-1)


def widen(tensor: Tensor) -> Tensor:
    """Half precision widened to float32; float64 stays what it is."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


def checked_mask(mask: Tensor, tensor: Tensor) -> Tensor:
    """The boolean mask of each position of (batch, tokens, width)."""
    if mask.shape != tensor.shape[:-1]:
        raise LossError(
            f"the mask {tuple(mask.shape)} does not fit logits or hidden "
            f"states {tuple(tensor.shape)}: it needs one value per position, "
            "as shift_for_next_token gives it"
        )
    if mask.dtype != torch.bool and not ((mask == 0) | (mask == 1)).all():
        raise LossError("the mask is not 0 and 1: pass labels != -100")
    return mask.bool()


def finite(loss: Tensor) -> Tensor:
    """The loss itself; LossError when it is NaN."""
    if torch.isnan(loss.detach()):
        raise LossError(
            "the loss is NaN, so a logit or hidden state is NaN or infinite, "
            "or all logits of a position are -inf: look for the first step "
            "with a NaN, then lower the learning rate or the weight, or load "
            "the model in bfloat16, not float16"
        )
    return loss


def linear_cka(first: Tensor, second: Tensor) -> Tensor:
    """Similarity of two sets of states, a scalar from 0 to 1.

    (positions, width) each, the same 2 or more positions, any widths. 1 when
    one is the other up to rotation, scale and shift. Source: Kornblith et al.
    2019 (arXiv:1905.00414), section 3, equation 6 and table 1.
    """
    first, second = (
        states.double() - states.double().mean(dim=0)
        for states in (first, second)
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


@dataclass(frozen=True)
class FeatureTerm:
    """Which hidden states a student imitates, how, and how much it counts.

    layers: pairs (student's layer, teacher's layer), or the name of a
        `layer_map`.
    kind: of `hidden_state_loss`; the pairs' mean is taken, so the weight
        does not depend on their number.
    """

    layers: Pairs | str = "even"
    weight: float = 1.0
    kind: str = "mse"

    def pairs(self, student: Any, teacher: Any) -> Pairs:
        """The pairs for two models; LossError for a layer they lack."""
        pairs = self.layers
        if isinstance(pairs, str):
            pairs = layer_map(pairs, depth(student), depth(teacher))
        check_layers(student, [layer for layer, _ in pairs], "student")
        check_layers(teacher, [layer for _, layer in pairs], "teacher")
        return pairs


class Projectors(nn.Module):
    """One linear map per pair of layers, from student to teacher width.

    Trained with the student, saved beside its checkpoints, and not part of
    the student that is exported.
    """

    def __init__(
        self, pairs: Pairs, student_width: int, teacher_width: int, seed: int
    ) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.maps = nn.ModuleDict()
        for student, teacher in pairs:
            linear = nn.Linear(student_width, teacher_width, bias=False)
            nn.init.orthogonal_(linear.weight, generator=generator)
            self.maps[f"{student}_{teacher}"] = linear

    def forward(self, states: Tensor, student: int, teacher: int) -> Tensor:
        """(..., student width) to (..., teacher width)."""
        return self.maps[f"{student}_{teacher}"](states)


def depth(model: Any) -> int:
    """The number of blocks, which is also the index of the last layer."""
    return model.config.get_text_config().num_hidden_layers


def width(model: Any) -> int:
    """The width of the hidden states."""
    return model.config.get_text_config().hidden_size


def decoder_of(model: Any) -> nn.Module:
    """The model without its head, adapters or not."""
    return getattr(model, "get_base_model", lambda: model)().get_decoder()


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

    `output_hidden_states=True` would keep all of them. The last one is what
    the decoder returns: not every library calls the module of the final norm
    (Unsloth on a GPU reads its weight). Blocks are meant for a model that
    takes no gradient: gradient checkpointing runs a block twice.
    """
    check_layers(model, layers, "model")
    decoder = decoder_of(model)
    modules = [decoder.embed_tokens, *decoder.layers[:-1], decoder]
    states: dict[int, Tensor] = {}

    def keep(layer: int, _: nn.Module, __: Any, output: Any) -> None:
        states[layer] = output if torch.is_tensor(output) else output[0]

    with contextlib.ExitStack() as hooks:
        for layer in layers:
            hook = partial(keep, layer)
            handle = modules[layer].register_forward_hook(hook)
            hooks.enter_context(handle)  # removes the hook in the end
        yield states
