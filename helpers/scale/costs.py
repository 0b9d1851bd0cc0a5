"""How long a run takes and what it costs: estimates, never measurements.

A roofline with one honest knob: the share of a card's peak that real code
reaches. Standard library only.
"""

from __future__ import annotations

from dataclasses import dataclass

from helpers.scale.planner import PROMPT, weight_bytes
from helpers.scale.shapes import Shape

COMPUTE_SHARE = 0.35  # of the peak arithmetic, in training
BANDWIDTH_SHARE = 0.5  # of the peak bandwidth, in generation
STEP_SECONDS = 0.03  # a step of plain `generate` launches its kernels: no
# step is faster than this. A server with captured graphs is.
UNPACK_BYTES = 4.0  # bitsandbytes writes and reads each 4-bit weight as 16


@dataclass(frozen=True)
class Card:
    """A GPU: GiB as nvidia-smi shows; dense 16-bit TFLOPS, GB/s as sold."""

    name: str
    gib: float
    tflops: float
    bandwidth: float
    bfloat16: bool = True


CARDS = (
    Card("RTX 4060", 8, 30, 272),
    Card("T4", 15, 65, 320, bfloat16=False),
    Card("L4", 22.5, 121, 300),
    Card("RTX 4090", 24, 165, 1008),
    Card("L40S", 45, 362, 864),
    Card("A100 80GB", 80, 312, 2039),
    Card("H100 80GB", 80, 989, 3350),
)


def active_parameters(shape: Shape) -> int:
    """Weights that every token passes through: no look-up of embeddings."""
    return shape.linear + shape.vocabulary * shape.width


def training_seconds(
    shape: Shape, tokens: int, card: Card, *, checkpointing: bool = False
) -> float:
    """Seconds to train adapters on `tokens`, all epochs together.

    Two operations a weight and token forward, two for the gradient of the
    activations, and the forward pass again with checkpointing.
    """
    passes = 6 if checkpointing else 4
    operations = passes * active_parameters(shape) * tokens
    return operations / (card.tflops * 1e12 * COMPUTE_SHARE)


def cache_moves(shape: Shape) -> int:
    """How often plain `generate` moves each byte of the cache in one step.

    transformers' DynamicCache is read and written anew to append one token;
    with a mask, keys and values that a group of heads shares are read,
    written once for each head and read there. A server moves it once.
    """
    group = shape.heads // shape.kv_heads
    return 3 if group == 1 else 3 + 2 * group


def generation_seconds(
    shape: Shape,
    answers: int,
    tokens: int,
    card: Card,
    *,
    batch: int,
    bits: int = 16,
    server: bool = False,
) -> float:
    """Seconds to write `answers`, `batch` at a time.

    tokens: of the longest answer in a batch, since all its rows take as many
    steps; for a server, which refills the place of a finished row, the mean.
    Each step reads all weights once (4-bit ones are unpacked first) and moves
    every row's cache, at half its final length on average; or it is limited
    by arithmetic, or, without a server, by the start of its kernels.
    """
    moved = weight_bytes(shape, bits)
    if bits == 4:
        moved += UNPACK_BYTES * shape.linear
    moves = 1 if server else cache_moves(shape)
    moved += moves * batch * shape.cache_bytes(max(1, tokens // 2))
    moving = moved / (card.bandwidth * 1e9 * BANDWIDTH_SHARE)
    operations = 2 * active_parameters(shape) * batch
    counting = operations / (card.tflops * 1e12 * COMPUTE_SHARE)
    steps = -(-answers // batch) * tokens
    return steps * max(moving, counting, 0 if server else STEP_SECONDS)


def on_policy_seconds(
    student: Shape,
    teacher: Shape,
    texts: int,
    tokens: int,
    card: Card,
    *,
    batch: int,
    bits: int = 4,
    server: bool = False,
) -> dict[str, float]:
    """Seconds to write, judge and learn from so many own texts.

    tokens: of a text. The student writes `batch` of them at once, by plain
    `generate` or, with `server`, by an engine that gets its new weights; the
    teacher reads them, two operations a weight and token; then the student
    is trained on them, checkpointed.
    """
    read = texts * (PROMPT + tokens)
    return {
        "write": generation_seconds(
            student, texts, tokens, card, batch=batch,
            bits=16 if server else bits, server=server,
        ),
        "judge": training_seconds(teacher, read, card) / 2,
        "learn": training_seconds(student, read, card, checkpointing=True),
    }  # fmt: skip
