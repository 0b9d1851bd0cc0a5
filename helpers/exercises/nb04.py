"""The worked cases of the exercises in notebook 04, and what they lead to."""

from helpers.exercises.check import Cases, exercise


def textbook(p: float, n: int) -> float:
    """The reference of 04.1."""
    return 1.96 * (p * (1 - p) / n) ** 0.5


def disagreements(before: list, after: list) -> tuple[int, int]:
    """The reference of 04.2."""
    pairs = list(zip(before, after, strict=True))
    return pairs.count((True, False)), pairs.count((False, True))


def differing(first: list[str], second: list[str]) -> int:
    """The reference of 04.3."""
    return sum(a != b for a, b in zip(first, second, strict=True))


@exercise("04.1", hint="p plus or minus 1.96 * sqrt(p * (1 - p) / n)",
          reference=textbook)  # fmt: skip
def half_width() -> Cases:
    """`half_width(p, n)`: the plain 95% interval's half width."""
    yield (0.5, 100), 0.098
    yield (0.8, 600), 0.032
    yield (0.5, 1319), 0.02698


@exercise("04.2", hint="count only the pairs in which the two disagree",
          reference=disagreements)  # fmt: skip
def discordant() -> Cases:
    """`discordant(before, after)`: (only before right, only after right)."""
    yield ([True, True, False], [True, False, True]), (1, 1)
    yield ([False] * 4, [True] * 4), (0, 4)
    yield ([True, False], [True, False]), (0, 0)


@exercise("04.3", hint="zip them, and count the pairs that are not equal",
          reference=differing)  # fmt: skip
def moved() -> Cases:
    """`moved(first, second)`: places at which the questions differ."""
    yield (["a", "b", "c"], ["a", "b", "c"]), 0
    yield (["a", "b", "c"], ["c", "b", "a"]), 2
    yield (["a", "b"], ["b", "a"]), 2
