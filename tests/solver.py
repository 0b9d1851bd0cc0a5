"""An independent reader of composed questions: it solves from text alone.

It knows nothing of moves, steps or gold: sentences in, an answer out.
"""

import re
from fractions import Fraction

N = r"(\d+)"
W = r"(?:an? )?(\w+)"
NOW = r"(?: now| in all)?"
HAS = rf"{W} (?:has|costs|is|\w+s)"
MANY = r"(?:many \w+|much|far|old)"
THEN = rf"then the price of {W}"
# fmt: off
# sentence -> (new or changed name, value), given the values so far
FACTS = [
    (rf"{HAS} {N} (?:\w+|years old)", lambda v, a, n: (a, n)),
    (rf"{HAS} {N} (?:rounds|\w+) (?:of|with) {N} \w+ each",
     lambda v, a, j, k: (a, j * k)),
    (rf"the price of {N} (\w+)s is {N} dollars",
     lambda v, j, a, k: (a, k / j)),
    (rf"{W} was {N} years old {N} years ago", lambda v, a, j, k: (a, j + k)),
    (rf"{HAS} {N} times as {MANY} as {W}", lambda v, a, k, b: (a, k * v[b])),
    (rf"{HAS} half as {MANY} as {W}", lambda v, a, b: (a, v[b] / 2)),
    (rf"{HAS} as {MANY} as {W} and {W} together",
     lambda v, a, b, c: (a, v[b] + v[c])),
    (rf"{HAS} {N} (?:more \w+|\w+ more|years older) than {W}",
     lambda v, a, k, b: (a, v[b] + k)),
    (rf"{HAS} {N} (?:fewer \w+|\w+ less|years younger) than {W}",
     lambda v, a, k, b: (a, v[b] - k)),
    (rf"then {W} finds {N} more \w+", lambda v, a, k: (a, v[a] + k)),
    (rf"then {W} gives away {N} \w+", lambda v, a, k: (a, v[a] - k)),
    (r"then half of (\w+)'s \w+ get lost", lambda v, a: (a, v[a] / 2)),
    (rf"{THEN} rises by {N} dollars", lambda v, a, k: (a, v[a] + k)),
    (rf"{THEN} falls by {N} dollars", lambda v, a, k: (a, v[a] - k)),
    (rf"then {W} \w+s another {N} kilometers", lambda v, a, k: (a, v[a] + k)),
]
# what comes last: one or two sentences, the question among them
ENDS = [
    (rf"how many (?:\w+|years old) (?:do|are) {W} and {W}"
     rf"(?: \w+)? together{NOW}\?", lambda v, a, b: v[a] + v[b]),
    (rf"how many (?:more \w+|\w+ more|years older) (?:does|is) {W}"
     rf"(?: \w+)? than {W}{NOW}\?", lambda v, a, b: v[a] - v[b]),
    (rf"each of (\w+)'s \w+ is worth {N} dollars\. how many dollars are "
     r"\w+'s \w+ worth\?", lambda v, a, k: k * v[a]),
    (rf"then {N} friends share (\w+)'s \w+ equally\. how many \w+ does "
     r"each friend get\?", lambda v, k, a: v[a] / k),
    (rf"(\w+)'s \w+ go into \w+ of {N}\. how many \w+ do they fill\?",
     lambda v, a, k: v[a] / k),
    (rf"\w+ buys {N} (\w+)s\. how many dollars does \w+ pay\?",
     lambda v, k, a: k * v[a]),
    (rf"\w+ has {N} dollars and buys {W}\. how many dollars does \w+ have "
     r"left\?", lambda v, k, a: k - v[a]),
    (rf"{W} needs {N} minutes for each kilometer\. how many minutes does "
     rf"\w+ need{NOW}\?", lambda v, a, k: k * v[a]),
    (rf"how many years old will {W} be in {N} years\?",
     lambda v, a, k: v[a] + k),
    (rf"how many (?:\w+|years old) (?:does|is) {W}(?: \w+)?{NOW}\?",
     lambda v, a: v[a]),
]
# fmt: on
TOLD = (
    rf"together {W} and {W}(?: now)? \w+ {N} (?:\w+|years old)"
    rf"(?: in all)?\. (.*)"
)
BUSES = (
    rf"three buses carry {N} students\. the (\w+) bus carries {N} times as "
    rf"many as the (\w+) bus\. the (\w+) bus carries {N} more than the \4 "
    rf"bus\. the \2 bus and the \5 bus carry {N} together\. how many students "
    r"does the \4 bus carry\?"
)


def numbers(groups: tuple[str, ...]) -> list[str | Fraction]:
    """Digits as exact numbers, names as they are."""
    return [Fraction(g) if g.isdigit() else g for g in groups]


def solve_buses(groups: tuple[str, ...]) -> str:
    """Three unknowns from three claims; the fourth decides."""
    total, times, more, both = (Fraction(groups[i]) for i in (0, 2, 5, 6))
    asked = (total - more) / (times + 2)
    agrees = times * asked + asked + more == both and asked > 0
    return str(asked) if agrees else "no solution"


def read_fact(sentence: str, values: dict[str, Fraction]) -> None:
    """Take in one sentence that says or changes a quantity."""
    for pattern, rule in FACTS:
        match = re.fullmatch(pattern, sentence)
        if match:
            name, value = rule(values, *numbers(match.groups()))
            values[name] = Fraction(value)
            return
    raise ValueError(f"not understood: {sentence}")


def solve(question: str) -> str:
    """The answer of a question, as `Problem.final` writes it."""
    text = question.lower()
    if match := re.fullmatch(BUSES, text):
        return solve_buses(match.groups())
    values: dict[str, Fraction] = {}
    while True:
        if told := re.fullmatch(TOLD, text):
            first, second, total, text = told.groups()
            if values[first] + values[second] != int(total):
                return "no solution"
        for pattern, rule in ENDS:
            if match := re.fullmatch(pattern, text):
                return str(rule(values, *numbers(match.groups())))
        sentence, _, text = text.partition(". ")
        read_fact(sentence, values)
