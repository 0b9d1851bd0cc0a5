"""The worked cases of the exercises in notebook 03, and what they lead to."""

from helpers.exercises.check import Cases, exercise


def per_weight(block: int, scale_bits: int, group: int | None = None) -> float:
    """The reference of 03.1."""
    shared = 32 / (block * group) if group else 0
    return 4 + scale_bits / block + shared


def adapter_size(shapes: list[tuple[int, int]], rank: int) -> int:
    """The reference of 03.2."""
    return sum(rank * (rows + columns) for rows, columns in shapes)


def masked(prompt_ids: list, answer_ids: list, end_id: int) -> list:
    """The reference of 03.3."""
    return [-100] * len(prompt_ids) + [*answer_ids, end_id]


@exercise("03.1", hint="4 bits for the code, plus a scale shared by a block, "
          "plus with a group 32 bits shared by block * group weights",
          reference=per_weight)  # fmt: skip
def bits_per_weight() -> Cases:
    """`bits_per_weight(block, scale_bits, group=None)`."""
    yield (64, 32), 4.5
    yield (32, 16), 4.5
    yield (64, 8, 256), 4.126953
    yield (64, 8, 16), 4.15625


@exercise("03.2", hint="A has rank * in numbers, B has out * rank",
          reference=adapter_size)  # fmt: skip
def lora_size() -> Cases:
    """`lora_size(shapes, rank)`: trainable parameters of the adapters."""
    yield ([(128, 384)], 8), 4096
    yield ([(128, 128), (32, 128)], 1), 416
    yield ([], 16), 0


@exercise("03.3", hint="-100 once per prompt id, then the answer, then end",
          reference=masked)  # fmt: skip
def mask_labels() -> Cases:
    """`mask_labels(prompt_ids, answer_ids, end_id)`: labels of one row."""
    yield ([2, 5, 9], [7, 8], 1), [-100, -100, -100, 7, 8, 1]
    yield ([4], [], 1), [-100, 1]


def found(ids: list, labels: list, prompt: int) -> str:
    """The reference of 03.4."""
    if any(b not in (-100, a) for a, b in zip(ids, labels, strict=True)):
        return "shifted"
    if labels[:prompt] != [-100] * prompt:
        return "asks"
    return "never ends" if labels[-1] == -100 else "sound"


def colleagues_labels(row: dict) -> dict[str, list]:
    """Four colleagues' labels of one row; one of them has them right."""
    ids, labels = row["input_ids"], row["labels"]
    return {
        "Ada": [*labels[:-1], -100],
        "Ben": [*labels[1:], -100],
        "Cem": labels,
        "Dea": ids,
    }


@exercise("03.4", hint="the three faults in their order; slices do the rest",
          reference=found)  # fmt: skip
def diagnosis() -> Cases:
    """`diagnosis(ids, labels, prompt)`: the first fault, or "sound"."""
    ids = [4, 5, 6, 7, 1]
    yield (ids, [-100, -100, 6, 7, 1], 2), "sound"
    yield (ids, [-100, 6, 7, 1, -100], 2), "shifted"
    yield (ids, ids, 2), "asks"
    yield (ids, [-100, 5, 6, 7, 1], 2), "asks"
    yield (ids, [-100, -100, 6, 7, -100], 2), "never ends"
