"""What a composed problem is made of: moves, steps, and the problem itself.

Moves are data: data/problems/moves.json, explained in the README beside it.
"""

import json
import operator
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from helpers.answers import NO_SOLUTION
from helpers.profiles import DATA

MOVES = DATA / "problems" / "moves.json"
SYMBOLS: dict[str, Callable[[int, int], int]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": operator.floordiv,
}


@dataclass(frozen=True)
class Move:
    """One sentence of a problem, and the sum that it asks for.

    kind: start (a new quantity), relation (a new one from older ones), event
        (a quantity changes), end (asks), told (says a total, then asks).
    text: `{N}` is new, `{A}` and `{B}` are known, `{k}` and `{j}` numbers.
    sum: "a + k"; `a` and `b` are the values of A and B; "" for a given value.
    step: how a thought states the result `{x}`; the topic's fact where "".
    """

    topic: str
    kind: str
    name: str
    text: str
    sum: str = ""
    step: str = ""
    j: tuple[int, int] = (0, 0)
    k: tuple[int, int] = (0, 0)


@dataclass(frozen=True)
class Topic:
    """What problems are about, and how a fact is stated.

    fact: as a step gives it; changed: after a change; brief: called to mind.
    share: weight in the draw; who: the word list that names its quantities;
    limit: the largest value; now: what a question adds after a change.
    """

    share: int
    who: str
    limit: int
    now: str
    brief: str
    fact: str
    changed: str


@dataclass(frozen=True)
class Step:
    """One sum of a solution; `{x}` in its sentence stands for the result.

    needs: the numbers of the steps whose results it uses.
    """

    sentence: str
    left: int
    symbol: str
    right: int
    value: int
    needs: frozenset[int] = frozenset()

    @property
    def equation(self) -> str:
        return f"{self.left}{self.symbol}{self.right}={self.value}"

    @property
    def thought(self) -> str:
        """`Tom has 3*4=12 apples.`"""
        return self.sentence.replace("{x}", self.equation)

    @property
    def gold(self) -> str:
        """`Tom has 3*4=<<3*4=12>>12 apples.`, GSM8K's calculator note."""
        note = f"{self.left}{self.symbol}{self.right}=<<{self.equation}>>"
        return self.sentence.replace("{x}", f"{note}{self.value}")


@dataclass(frozen=True)
class Problem:
    """A question, its worked answer, and how it was composed.

    answer: GSM8K's format, the last line is `#### 72`.
    moves: the composition, such as "has: boxes more together".
    comparison: a told total against the computed one; "" where none is told.
    """

    question: str
    answer: str
    impossible: bool
    moves: str
    steps: tuple[Step, ...] = field(repr=False)
    comparison: str = ""

    @property
    def topic(self) -> str:
        return self.moves.partition(":")[0]

    @property
    def final(self) -> str:
        """What stands behind `####`."""
        return self.answer.rpartition("#### ")[2]


def compare(computed: int, told: int) -> str:
    """`The question says 51. 51 is 51.`, or that they differ."""
    verdict = f"{computed} is not {told}, so this cannot be."
    if computed == told:
        verdict = f"{computed} is {told}."
    return f"The question says {told}. {verdict}"


def make_problem(
    question: str,
    steps: list[Step],
    moves: str,
    *,
    result: int,
    told: int | None = None,
) -> Problem:
    """A problem with its gold written out; a false total has no solution."""
    computed = steps[-1].value
    impossible = told not in (None, computed)
    comparison = "" if told is None else compare(computed, told)
    final = f"#### {NO_SOLUTION if impossible else result}"
    lines = [*(step.gold for step in steps), comparison, final]
    answer = "\n".join(filter(None, lines))
    return Problem(
        question, answer, impossible, moves, tuple(steps), comparison
    )


@dataclass(frozen=True)
class Book:
    """All of moves.json: words by kind, topics, moves by topic and kind."""

    words: dict[str, list[str]]
    topics: dict[str, Topic]
    moves: dict[str, dict[str, list[Move]]]
    buses: dict


@cache
def load_moves(path: Path = MOVES) -> Book:
    """Read moves.json; ValueError names the move with a wrong field."""
    data = json.loads(path.read_text(encoding="utf-8"))
    words = {name: text.split() for name, text in data["words"].items()}
    topics = {name: Topic(**row) for name, row in data["topics"].items()}
    moves: dict[str, dict[str, list[Move]]] = {name: {} for name in topics}
    for row in data["moves"]:
        try:
            move = Move(**row)
            moves[move.topic].setdefault(move.kind, []).append(move)
        except (KeyError, TypeError) as error:
            raise ValueError(
                f"{path.name}, move {row.get('name')!r}: {error}. Compare it "
                "with its neighbours; the README beside it names the fields."
            ) from error
    return Book(words, topics, moves, data["buses"])


def work_out(expression: str, values: dict[str, int]) -> Step | None:
    """`"a + k"` as a step without its sentence; None where it is not whole."""
    first, symbol, second = expression.split()
    left, right = (values.get(x) or int(x) for x in (first, second))
    if symbol == "/" and left % right:
        return None
    return Step("", left, symbol, right, SYMBOLS[symbol](left, right))
