"""The worked cases of the exercises in notebook 03."""

from helpers.exercises.check import Cases, exercise


@exercise("03.1", hint="4 bits for the code, plus a scale shared by a block")
def bits_per_weight() -> Cases:
    """`bits_per_weight(block, scale_bits)`: codes and scales together."""
    yield (64, 32), 4.5
    yield (64, 8), 4.125
    yield (32, 16), 4.5


@exercise("03.2", hint="A has rank * in numbers, B has out * rank")
def lora_size() -> Cases:
    """`lora_size(shapes, rank)`: trainable parameters of the adapters."""
    yield ([(128, 384)], 8), 4096
    yield ([(128, 128), (32, 128)], 1), 416
    yield ([], 16), 0


@exercise("03.3", hint="-100 once per prompt id, then the answer, then end")
def mask_labels() -> Cases:
    """`mask_labels(prompt_ids, answer_ids, end_id)`: labels of one row."""
    yield ([2, 5, 9], [7, 8], 1), [-100, -100, -100, 7, 8, 1]
    yield ([4], [], 1), [-100, 1]
