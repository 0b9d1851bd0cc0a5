"""The worked cases of the exercises in notebook 04."""

from helpers.exercises.check import Cases, exercise


@exercise("04.1", hint="p plus or minus 1.96 * sqrt(p * (1 - p) / n)")
def half_width() -> Cases:
    """`half_width(p, n)`: the plain 95% interval's half width."""
    yield (0.5, 100), 0.098
    yield (0.8, 600), 0.032
    yield (0.5, 1319), 0.02698


@exercise("04.2", hint="count only the pairs in which the two disagree")
def discordant() -> Cases:
    """`discordant(before, after)`: (only before right, only after right)."""
    yield ([True, True, False], [True, False, True]), (1, 1)
    yield ([False] * 4, [True] * 4), (0, 4)
    yield ([True, False], [True, False]), (0, 0)
