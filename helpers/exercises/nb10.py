"""The exercises of notebook 10."""

from helpers.exercises.check import exercise
from helpers.scale.shapes import load_shape

GEMMA = load_shape("gemma-3-1b-it")


@exercise("10.1", "four numbers of four bytes, and one copy of two",
          (1, 18),
          (1_000_000, 18_000_000),
          (3_796_992, 68_345_856))  # fmt: skip
def trained_bytes(parameters: int) -> int:
    """What training them keeps, in bytes."""
    return (4 * 4 + 2) * parameters


@exercise("10.2", "a sliding layer keeps min(tokens, window) of them",
          ((36, 0, 0, 8, 128, 1), 147_456),
          ((36, 0, 0, 8, 128, 8192), 147_456 * 8192),
          *(((GEMMA.layers - GEMMA.sliding, GEMMA.sliding, GEMMA.window, 1,
              256, tokens), GEMMA.cache_bytes(tokens))
            for tokens in (100, 512, 8192)))  # fmt: skip
def cache_bytes(
    full: int,
    sliding: int,
    window: int,
    heads: int,
    head_dim: int,
    tokens: int,
) -> int:
    """Bytes of the keys and values of one row, in bfloat16."""
    kept = full * tokens + sliding * min(tokens, window)
    return 2 * 2 * heads * head_dim * kept


@exercise("10.3", "weigh each mean by its tokens",
          (([2.0, 4.0], [100, 100]), 3.0),
          (([2.0, 4.0], [300, 100]), 2.5),
          (([1.0, 1.5, 5.0], [10, 20, 0]), 4 / 3))  # fmt: skip
def joined_loss(means: list[float], tokens: list[int]) -> float:
    """The mean over all tokens of all GPUs."""
    pairs = zip(means, tokens, strict=True)
    return sum(mean * count for mean, count in pairs) / sum(tokens)
