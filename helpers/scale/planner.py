"""Expected peak memory of training and generation, from a config alone.

Standard library only: `doctor` asks it on a machine that has nothing else.
`bench --only memory` measures whole runs against it.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

from helpers import CourseError
from helpers.scale.shapes import PlanError, Shape, load_shape

__all__ = [
    "GIB",
    "METHODS",
    "Plan",
    "PlanError",
    "load_shape",
    "plan_memory",
    "weight_bytes",
]

GIB = 2**30
METHODS = ("sft", "logit", "logit_chunked", "generate")
PROMPT = 256  # tokens of a question in its template, generously
CHUNK = 256  # positions whose logits exist at once: TRL's default
# Bytes a weight: NF4 with double quantization keeps 8 bits per block of 64,
# and 32 bits per 256 blocks (QLoRA, arXiv:2305.14314, section 3).
WEIGHT_BYTES = {4: 0.5 + 1 / 64 + 4 / (64 * 256), 16: 2.0, 32: 4.0}
LOGIT_BYTES = 16  # float32 four times: logits, log-softmax, gradients
KD_LOGIT_BYTES = 36  # the same for two models, and their difference
KD_CHUNK_BYTES = 25  # in chunks nothing is converted for a whole batch


@dataclass(frozen=True)
class Plan:
    """Bytes by what they are for; `total` is the expected peak."""

    weights: int
    adapters: int
    gradients: int
    optimizer: int
    activations: int
    logits: int
    cache: int
    teacher: int

    @property
    def total(self) -> int:
        """Their sum, without what the libraries themselves occupy."""
        return sum(asdict(self).values())


def weight_bytes(shape: Shape, bits: int) -> int:
    """Frozen weights: the projections in `bits`, the rest in bfloat16."""
    rest = 4 if bits == 32 else 2
    kept = (shape.embedding + shape.norms) * rest
    return round(shape.linear * WEIGHT_BYTES[bits] + kept)


def plan_memory(
    shape: Shape,
    *,
    method: str = "sft",
    bits: int = 4,
    rank: int = 16,
    batch: int = 1,
    length: int = 1024,
    checkpointing: bool = False,
    chunk: int = CHUNK,
    prompt: int = PROMPT,
    teacher: Shape | None = None,
    teacher_bits: int = 16,
) -> Plan:
    """The expected peak of a training step, or of generation, in bytes.

    batch: rows at once; length: tokens of a row, prompt included. rank 0
    trains all weights (bits 16), in float32 under bfloat16 autocast. chunk:
    positions whose logits exist at once, in `sft` and `logit_chunked`.
    prompt: how much of `length` is read at once, in `generate`. The logit
    methods hold `teacher` too. Raises CourseError for what cannot be.
    """
    check(shape, method, bits, rank, batch, length, chunk, teacher)
    tokens = batch * length
    if method == "generate":
        return generation_plan(shape, bits, batch, length, prompt)
    if rank:
        weights, trained = weight_bytes(shape, bits), shape.adapters(rank)
    else:
        weights, trained = 0, shape.parameters
    layer = shape.kept_per_token(rank)
    kept = shape.layers * layer
    if checkpointing:  # each layer's input, and one layer made again
        kept = 2 * shape.width * shape.layers + layer
    kept += 2 * 2 * shape.width  # the last norm
    seen = tokens if method == "logit" else min(chunk, tokens)
    per_logit = {"sft": LOGIT_BYTES, "logit": KD_LOGIT_BYTES}.get(
        method, KD_CHUNK_BYTES
    )
    taught = teacher is not None and method != "sft"
    return Plan(
        weights=weights,
        adapters=(4 + 2) * trained,  # float32, and autocast's copy
        gradients=4 * trained,
        optimizer=8 * trained,
        activations=kept * tokens,
        logits=per_logit * seen * shape.vocabulary,
        cache=0,
        teacher=weight_bytes(teacher, teacher_bits) if taught else 0,
    )


def generation_plan(
    shape: Shape, bits: int, batch: int, length: int, prompt: int
) -> Plan:
    """Weights, keys and values, and the last logits of every row.

    The peak is at the end, where one layer holds its keys and values once
    for each head, and half of them twice while a token is appended. Or, with
    long prompts, where they are read: then sliding layers still hold all of
    it, and one layer its inner tensors.
    """
    prompt = min(prompt, length)
    cache = batch * shape.cache_bytes(length)
    a_layer = 4 * shape.kv_heads * shape.head_dim
    group = shape.heads // shape.kv_heads
    repeated = group if group > 1 else 0
    copies = batch * length * round(a_layer * (repeated + 0.5))
    inner = 6 * shape.feed_forward + 8 * shape.width
    reading = batch * prompt * (inner + a_layer * shape.layers)
    return Plan(
        weights=weight_bytes(shape, bits),
        adapters=0,
        gradients=0,
        optimizer=0,
        activations=max(copies, reading - cache),
        logits=LOGIT_BYTES * batch * shape.vocabulary,
        cache=cache,
        teacher=0,
    )


def check(
    shape: Shape,
    method: str,
    bits: int,
    rank: int,
    batch: int,
    length: int,
    chunk: int,
    teacher: Shape | None,
) -> None:
    """Raise CourseError for settings that make no sense together."""
    if method not in METHODS:
        raise CourseError(
            f"method {method!r}: choose one of {', '.join(METHODS)}."
        )
    if bits not in WEIGHT_BYTES:
        raise CourseError(f"{bits} bits: choose 4, 16 or 32.")
    if rank == 0 and bits == 4 and method != "generate":
        raise CourseError(
            "4-bit weights cannot be trained themselves: give a rank of at "
            "least 1, or 16 bits."
        )
    if min(batch, length, chunk) < 1 or rank < 0:
        raise CourseError("batch, length and chunk start at 1, the rank at 0.")
    if method.startswith("logit") and teacher is None:
        raise CourseError("logit distillation holds a teacher: name one.")
    if method.startswith("logit") and not same_words(shape, teacher):
        raise CourseError(
            f"the vocabularies differ ({shape.vocabulary:,} and "
            f"{teacher.vocabulary:,} tokens): logit distillation needs one. "
            "Choose two models of one family."
        )


def same_words(shape: Shape, teacher: Shape | None) -> bool:
    """Could these two share a tokenizer? Padded tables differ a little."""
    sizes = shape.vocabulary, teacher.vocabulary if teacher else 0
    return max(sizes) - min(sizes) < 1024
