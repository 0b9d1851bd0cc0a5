"""Expected peak memory of training and generation, from a config alone.

Standard library only: `doctor` asks it on a machine that has nothing else.
`bench --only memory` measures whole runs against it.
"""

from __future__ import annotations

from dataclasses import astuple, dataclass, replace

from helpers import CourseError
from helpers.scale.shapes import Shape

GIB = 2**30
PROMPT = 256  # tokens of a question in its template, generously
PADDING = 1024  # rows by which two tables of one tokenizer may differ
CHUNK = 256  # positions whose logits exist at once: TRL's default
# Bytes a weight: NF4 with double quantization keeps 8 bits per block of 64,
# and 32 bits per 256 blocks (QLoRA, arXiv:2305.14314, section 3).
WEIGHT_BYTES = {4: 0.5 + 1 / 64 + 4 / (64 * 256), 16: 2.0, 32: 4.0}
# Bytes a trained parameter, in float32; the adapters with autocast's copy.
TRAINED_BYTES = {"adapters": 4 + 2, "gradients": 4, "optimizer": 4 + 4}
LOGIT_BYTES = 16  # float32 four times: logits, log-softmax, gradients
KD_LOGIT_BYTES = 36  # the same for two models, and their difference
METHOD_BYTES = {  # bytes a logit
    "sft": LOGIT_BYTES,
    "logit": KD_LOGIT_BYTES,
    "logit_chunked": 25,  # nothing is converted for a whole batch
    "generate": LOGIT_BYTES,
}
METHODS = tuple(METHOD_BYTES)


@dataclass(frozen=True)
class Plan:
    """Bytes by what they are for; `total` is the expected peak."""

    weights: int
    adapters: int = 0
    gradients: int = 0
    optimizer: int = 0
    activations: int = 0
    logits: int = 0
    cache: int = 0
    teacher: int = 0

    @property
    def total(self) -> int:
        """Their sum, without what the libraries themselves occupy."""
        return sum(astuple(self))


def weight_bytes(shape: Shape, bits: int) -> int:
    """Frozen weights: the projections in `bits`, the rest in bfloat16."""
    rest = (shape.embedding + shape.norms) * (4 if bits == 32 else 2)
    return round(shape.linear * WEIGHT_BYTES[bits] + rest)


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
    assert method in METHODS and bits in WEIGHT_BYTES, (method, bits)
    assert min(batch, length, chunk) >= 1 and rank >= 0
    if method == "generate":
        return generation_plan(shape, bits, batch, length, prompt)
    if bits == 4 and not rank:
        raise CourseError(
            "4-bit weights cannot be trained themselves: give a rank of at "
            "least 1, or 16 bits."
        )
    if method == "sft":
        teacher = None
    elif teacher is None:
        raise CourseError("logit distillation holds a teacher: name one.")
    elif abs(shape.vocabulary - teacher.vocabulary) >= PADDING:
        raise CourseError(
            f"the vocabularies differ ({shape.vocabulary:,} and "
            f"{teacher.vocabulary:,} tokens): logit distillation needs one. "
            "Choose two models of one family."
        )
    trained = shape.adapters(rank) if rank else shape.parameters
    tokens = batch * length
    at_once = tokens if method == "logit" else min(chunk, tokens)
    return Plan(
        weights=weight_bytes(shape, bits) if rank else 0,
        activations=tokens * activation_bytes(shape, rank, checkpointing),
        logits=METHOD_BYTES[method] * at_once * shape.vocabulary,
        teacher=weight_bytes(teacher, teacher_bits) if teacher else 0,
        **{part: size * trained for part, size in TRAINED_BYTES.items()},
    )


def activation_bytes(shape: Shape, rank: int, checkpointing: bool) -> int:
    """Bytes that all layers keep per token for the backward pass."""
    layer, last_norm = shape.kept_per_token(rank), 2 * 2 * shape.width
    if checkpointing:  # each layer's input, and one layer made again
        return 2 * shape.width * shape.layers + layer + last_norm
    return shape.layers * layer + last_norm


def generation_plan(
    shape: Shape, bits: int, batch: int, length: int, prompt: int
) -> Plan:
    """Weights, keys and values, and the last logits of every row.

    The peak is at the end, where one layer holds its keys and values once
    for each head, and half of them twice while a token is appended. Or, with
    long prompts, where they are read: then sliding layers still hold all of
    it, and one layer its inner tensors.
    """
    cache = batch * shape.cache_bytes(length)
    a_layer = 4 * shape.kv_heads * shape.head_dim  # of one token
    group = shape.heads // shape.kv_heads
    repeated = group if group > 1 else 0
    copies = batch * length * round(a_layer * (repeated + 0.5))
    inner = 6 * shape.feed_forward + 8 * shape.width
    read = batch * min(prompt, length) * (inner + a_layer * shape.layers)
    return Plan(
        weights=weight_bytes(shape, bits),
        activations=max(copies, read - cache),
        logits=LOGIT_BYTES * batch * shape.vocabulary,
        cache=cache,
    )


def plan_on_policy(
    shape: Shape,
    teacher: Shape,
    *,
    server: bool = False,
    bits: int = 4,
    rank: int = 16,
    batch: int = 1,
    written: int = 1,
    length: int = 1024,
    teacher_bits: int = 16,
) -> Plan:
    """The higher peak of a step: the student writes, or learns from it.

    batch, written: rows that it reads, and writes, at once. length: tokens
    of a question and the student's answer. The teacher is in
    the process and the loss in chunks (`kd_chunk`; TRL's
    `DistillationTrainer` too), or it is behind a server: it is not counted
    then, and all logits of the student exist at once, as in TRL 1.14's
    `ServerDistillationTrainer`. Training is checkpointed.
    """
    student = {"bits": bits, "length": length}
    learns = plan_memory(
        shape,
        method="sft" if server else "logit_chunked",
        rank=rank,
        batch=batch,
        checkpointing=True,
        chunk=batch * length if server else CHUNK,
        teacher=None if server else teacher,
        teacher_bits=teacher_bits,
        **student,
    )
    writes = replace(
        plan_memory(shape, method="generate", batch=written, **student),
        adapters=learns.adapters,
        optimizer=learns.optimizer,
        teacher=learns.teacher,
    )
    return max(learns, writes, key=lambda plan: plan.total)
