"""The worked cases of the exercises in notebook 10."""

from helpers.exercises.check import Cases, exercise
from helpers.scale.shapes import load_shape


@exercise("10.1", hint="four numbers of four bytes, and one copy of two")
def trained_bytes() -> Cases:
    """`trained_bytes(parameters)`: what training them keeps, in bytes."""
    yield 1, 18
    yield 1_000_000, 18_000_000
    small = load_shape("gemma-3-270m-it")
    yield small.adapters(16), 18 * small.adapters(16)


@exercise("10.2", hint="a sliding layer keeps min(tokens, window) of them")
def cache_bytes() -> Cases:
    """`cache_bytes(full, sliding, window, heads, head_dim, tokens)`."""
    yield (36, 0, 0, 8, 128, 1), 147_456
    yield (36, 0, 0, 8, 128, 8192), 147_456 * 8192
    gemma = load_shape("gemma-3-1b-it")
    for tokens in (100, 512, 8192):
        full = gemma.layers - gemma.sliding
        numbers = (full, gemma.sliding, gemma.window, 1, 256, tokens)
        yield numbers, gemma.cache_bytes(tokens)


@exercise("10.3", hint="weigh each mean by its tokens")
def joined_loss() -> Cases:
    """`joined_loss(means, tokens)`: the mean over all tokens of all GPUs."""
    yield ([2.0, 4.0], [100, 100]), 3.0
    yield ([2.0, 4.0], [300, 100]), 2.5
    yield ([1.0, 1.5, 5.0], [10, 20, 0]), 4 / 3
