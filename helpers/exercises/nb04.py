"""The exercises of notebook 04, and what they lead to."""

from helpers.exercises.check import exercise


@exercise("04.1", "p plus or minus 1.96 * sqrt(p * (1 - p) / n)",
          ((0.5, 100), 0.098),
          ((0.8, 600), 0.032),
          ((0.5, 1319), 0.02698))  # fmt: skip
def half_width(p: float, n: int) -> float:
    """The plain 95% interval's half width."""
    return 1.96 * (p * (1 - p) / n) ** 0.5


@exercise("04.2", "count only the pairs in which the two disagree",
          (([True, True, False], [True, False, True]), (1, 1)),
          (([False] * 4, [True] * 4), (0, 4)),
          (([True, False], [True, False]), (0, 0)))  # fmt: skip
def discordant(before: list, after: list) -> tuple[int, int]:
    """(only before right, only after right)."""
    pairs = list(zip(before, after, strict=True))
    return pairs.count((True, False)), pairs.count((False, True))


@exercise("04.3", "zip them, and count the pairs that are not equal",
          ((["a", "b", "c"], ["a", "b", "c"]), 0),
          ((["a", "b", "c"], ["c", "b", "a"]), 2),
          ((["a", "b"], ["b", "a"]), 2))  # fmt: skip
def moved(first: list[str], second: list[str]) -> int:
    """Places at which the questions differ."""
    return sum(a != b for a, b in zip(first, second, strict=True))
