"""The exercises of notebook 11."""

from helpers.exercises.check import exercise


@exercise("11.1", "try each start from 1; the last block stays",
          (([0.9, 0.1, 0.35, 0.2, 0.2, 0.8], 2), [0, 1, 2, 5]),
          (([0.9, 0.1, 0.3, 0.9, 0.2, 0.8], 2), [0, 3, 4, 5]),
          (([0.0, 0.9, 0.1, 0.0], 1), [0, 1, 3]),
          (([0.5] * 18, 9), [0, *range(10, 18)]))  # fmt: skip
def neighbouring_blocks(influence: list[float], dropped: int) -> list[int]:
    """What stays: the run of blocks whose influences sum up least goes."""
    starts = range(1, len(influence) - dropped)
    first = min(starts, key=lambda i: sum(influence[i : i + dropped]))
    gone = range(first, first + dropped)
    return [i for i in range(len(influence)) if i not in gone]


@exercise("11.2", "what lies below the first missing block is the "
          "teacher's own",
          (([0.0, 0.0, 0.31, 0.42], 2), True),
          (([0.12, 0.33, 0.31, 0.42], 2), False),
          (([1e-6, 0.08, 0.31, 0.42], 2), False),
          (([1e-6, 0.08, 0.31, 0.42], 1), True))  # fmt: skip
def rightly_wired(distances: list[float], untouched: int) -> bool:
    """Can the pairs be right? Below the first cut nothing has changed."""
    return max(distances[:untouched]) < 1e-3
