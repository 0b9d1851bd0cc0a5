"""The worked cases of the exercises in notebook 11."""

from helpers.exercises.check import Cases, exercise


def neighbours(influence: list[float], dropped: int) -> list[int]:
    """The reference: the run of blocks whose influences sum up least goes."""
    starts = range(1, len(influence) - dropped)
    first = min(starts, key=lambda i: sum(influence[i : i + dropped]))
    gone = range(first, first + dropped)
    return [i for i in range(len(influence)) if i not in gone]


def wired(distances: list[float], untouched: int) -> bool:
    """The reference: the layers below the first cut have not changed."""
    return max(distances[:untouched]) < 1e-3


@exercise("11.1", hint="try each start from 1; the last block stays",
          reference=neighbours)  # fmt: skip
def neighbouring_blocks() -> Cases:
    """`neighbouring_blocks(influence, dropped)`: the blocks that stay."""
    yield ([0.9, 0.1, 0.35, 0.2, 0.2, 0.8], 2), [0, 1, 2, 5]
    yield ([0.9, 0.1, 0.3, 0.9, 0.2, 0.8], 2), [0, 3, 4, 5]
    yield ([0.0, 0.9, 0.1, 0.0], 1), [0, 1, 3]
    yield ([0.5] * 18, 9), [0, *range(10, 18)]


@exercise("11.2", hint="what lies below the first missing block is the "
          "teacher's own", reference=wired)  # fmt: skip
def rightly_wired() -> Cases:
    """`rightly_wired(distances, untouched)`: can the pairs be right?"""
    yield ([0.0, 0.0, 0.31, 0.42], 2), True
    yield ([0.12, 0.33, 0.31, 0.42], 2), False
    yield ([1e-6, 0.08, 0.31, 0.42], 2), False
    yield ([1e-6, 0.08, 0.31, 0.42], 1), True
