"""The exercises of notebook 03, and what they lead to."""

from helpers.exercises.check import exercise


@exercise("03.1", "4 bits for the code, plus a scale shared by a block, "
          "plus with a group 32 bits shared by block * group weights",
          ((64, 32), 4.5),
          ((32, 16), 4.5),
          ((64, 8, 256), 4.126953),
          ((64, 8, 16), 4.15625))  # fmt: skip
def bits_per_weight(
    block: int, scale_bits: int, group: int | None = None
) -> float:
    """Bits that a weight takes, its share of the scales included."""
    shared = 32 / (block * group) if group else 0
    return 4 + scale_bits / block + shared


@exercise("03.2", "A has rank * in numbers, B has out * rank",
          (([(128, 384)], 8), 4096),
          (([(128, 128), (32, 128)], 1), 416),
          (([], 16), 0))  # fmt: skip
def lora_size(shapes: list[tuple[int, int]], rank: int) -> int:
    """Trainable parameters of the adapters."""
    return sum(rank * (rows + columns) for rows, columns in shapes)


@exercise("03.3", "-100 once per prompt id, then the answer, then end",
          (([2, 5, 9], [7, 8], 1), [-100, -100, -100, 7, 8, 1]),
          (([4], [], 1), [-100, 1]))  # fmt: skip
def mask_labels(prompt_ids: list, answer_ids: list, end_id: int) -> list:
    """The labels of one row."""
    return [-100] * len(prompt_ids) + [*answer_ids, end_id]


def colleagues_labels(row: dict) -> dict[str, list]:
    """Four colleagues' labels of one row; one of them has them right."""
    ids, labels = row["input_ids"], row["labels"]
    return {
        "Ada": [*labels[:-1], -100],
        "Ben": [*labels[1:], -100],
        "Cem": labels,
        "Dea": ids,
    }


@exercise("03.4", "the three faults in their order; slices do the rest",
          (([4, 5, 6, 7, 1], [-100, -100, 6, 7, 1], 2), "sound"),
          (([4, 5, 6, 7, 1], [-100, 6, 7, 1, -100], 2), "shifted"),
          (([4, 5, 6, 7, 1], [4, 5, 6, 7, 1], 2), "asks"),
          (([4, 5, 6, 7, 1], [-100, 5, 6, 7, 1], 2), "asks"),
          (([4, 5, 6, 7, 1], [-100, -100, 6, 7, -100], 2), "never ends")
          )  # fmt: skip
def diagnosis(ids: list, labels: list, prompt: int) -> str:
    """The first fault, or "sound"."""
    if any(b not in (-100, a) for a, b in zip(ids, labels, strict=True)):
        return "shifted"
    if labels[:prompt] != [-100] * prompt:
        return "asks"
    return "never ends" if labels[-1] == -100 else "sound"
