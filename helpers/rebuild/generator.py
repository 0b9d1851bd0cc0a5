"""The problem generator of the mini lab.

Templates are data (data/problems/templates.json, explained in the README
beside it): a text, ranges for its numbers, and steps. Numbers are drawn again
until every step gives a whole number between 1 and 999.
"""

from __future__ import annotations

import ast
import json
import operator
import random
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from helpers.answers import NO_SOLUTION
from helpers.profiles import DATA
from helpers.rebuild.composed.problem import SYMBOLS

TEMPLATES = DATA / "problems" / "templates.json"

NAMES = (
    "Sarah Tom Mia Omar Lena Raj Ana Ken Zoe Max Ivy Leo Nina Ali Eva Sam"
).split()
OBJECTS = (
    "apples books coins stickers marbles shells pens cards beads stamps "
    "crayons muffins cookies pencils balloons stones"
).split()
CONTAINERS = "boxes bags packs jars trays baskets".split()
THINGS = "book ticket pen smoothie pizza toy cup hat muffin lamp".split()

INVERSE = {"+": "-", "-": "+", "*": "/", "/": "*"}
NODES: dict[type, Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.Gt: operator.gt,
}


@dataclass(frozen=True)
class Step:
    """One line of a solution: `label: left symbol right = value`."""

    label: str
    left: int
    symbol: str
    right: int
    value: int

    @property
    def equation(self) -> str:
        return f"{self.left} {self.symbol} {self.right} = {self.value}"

    @property
    def check(self) -> str:
        """The inverse calculation, as a thinker would verify the step."""
        inverse = INVERSE[self.symbol]
        return f"{self.value} {inverse} {self.right} = {self.left}"


@dataclass(frozen=True)
class Problem:
    """A mini problem with its worked steps.

    `answer` is the value as text, or "no solution"; `conflict` says why an
    impossible problem is impossible and is empty otherwise; `told` is a
    number of the question that the result must agree with, or empty.
    """

    template: str
    question: str
    steps: tuple[Step, ...]
    answer: str
    conflict: str
    told: str = ""

    @property
    def gold(self) -> str:
        """The worked answer in GSM8K's format, calculator notes included."""
        lines = [
            f"{s.left} {s.symbol} {s.right} = "
            f"<<{s.left}{s.symbol}{s.right}={s.value}>>{s.value} {s.label}."
            for s in self.steps
        ]
        if self.conflict:
            lines.append(f"{self.conflict}, so this cannot be.")
        return "\n".join([*lines, f"#### {self.answer}"])


@cache
def load_templates(path: Path = TEMPLATES) -> tuple:
    """The templates as dictionaries; their README explains every field."""
    try:
        return tuple(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:
        raise ValueError(
            f"{path.name}: {error}. Restore it with "
            "`git checkout -- data/problems/templates.json`."
        ) from error


def evaluate_expression(expression: str, values: dict[str, int]) -> Any:
    """Arithmetic and comparisons over named whole numbers, nothing else.

    Raises ValueError for anything a template should not contain.
    """

    def visit(node: ast.AST) -> Any:
        match node:
            case ast.Expression(body=body):
                return visit(body)
            case ast.Constant(value=int() as value):
                return value
            case ast.Name(id=name) if name in values:
                return values[name]
            case ast.BinOp(left=left, op=op, right=right) if type(op) in NODES:
                return NODES[type(op)](visit(left), visit(right))
            case ast.Compare(left=left, ops=[op], comparators=[right]) if (
                type(op) in NODES
            ):
                return NODES[type(op)](visit(left), visit(right))
            case ast.BoolOp(op=ast.And(), values=parts):
                return all(visit(part) for part in parts)
        raise refusal

    refusal = ValueError(f"a template cannot contain {expression!r}")
    try:
        return visit(ast.parse(expression, mode="eval"))
    except SyntaxError:
        raise refusal from None


def draw_numbers(spec: str, rng: random.Random) -> dict[str, int]:
    """`"x 2..9, y = 2 * x"` -> one draw, for instance {"x": 4, "y": 8}."""
    values: dict[str, int] = {}
    for part in spec.split(","):
        drawn = re.fullmatch(r"\s*(\w+) (-?\d+)\.\.(-?\d+)\s*", part)
        if drawn:
            low, high = int(drawn[2]), int(drawn[3])
            values[drawn[1]] = rng.randint(low, high)
        else:
            name, expression = part.split("=", 1)
            value = evaluate_expression(expression.strip(), values)
            values[name.strip()] = value
    return values


def work_out(lines: list[str], values: dict[str, int]) -> list[Step] | None:
    """The steps of one draw, or None when a value is not exact in 1..999."""
    steps = []
    for line in lines:
        label, equation = line.split(": ")
        left, symbol, right, _, name = equation.split()
        a = int(left) if left.isdigit() else values[left]
        b = int(right) if right.isdigit() else values[right]
        if symbol == "/" and (b == 0 or a % b):
            return None
        values[name] = SYMBOLS[symbol](a, b)
        if not 1 <= values[name] <= 999:
            return None
        steps.append(Step(label, a, symbol, b, values[name]))
    return steps


def make_problem(template: dict, rng: random.Random) -> Problem:
    """One problem of a template: words drawn once, numbers until they fit."""
    words = dict(zip("ABC", rng.sample(NAMES, 3), strict=True))
    words |= {"o": rng.choice(OBJECTS), "c": rng.choice(CONTAINERS)}
    words["f"] = rng.choice(THINGS)
    while True:
        values = draw_numbers(template["numbers"], rng)
        where = template.get("where", "1 == 1")
        early = not re.findall(r"\b[stuvab]\b", where)
        if early and not evaluate_expression(where, values):
            continue
        steps = work_out(template["steps"], values)
        if steps and evaluate_expression(where, values):
            break
    fill = {**values, **words}
    steps = [
        Step(s.label.format(**fill), s.left, s.symbol, s.right, s.value)
        for s in steps
    ]
    conflict = template.get("conflict", "").format(**fill)
    last = values.get(template.get("answer", ""), steps[-1].value)
    return Problem(
        template=template["name"],
        question=template["text"].format(**fill),
        steps=tuple(steps),
        answer=NO_SOLUTION if conflict else str(last),
        conflict=conflict,
        told=template.get("told", "").format(**fill),
    )


def generate_problems(
    count: int,
    *,
    seed: int,
    held_out: bool = False,
    exclude: Iterable[str] = (),
) -> list[Problem]:
    """`count` different problems, none of whose questions is in `exclude`.

    The same seed gives the same list. `held_out=True` draws from the
    templates that no model has been trained on, `False` from all others.
    """
    rng = random.Random(seed)
    templates = [
        t for t in load_templates() if t.get("held_out", False) == held_out
    ]
    seen, problems = set(exclude), []
    while len(problems) < count:
        problem = make_problem(rng.choice(templates), rng)
        if problem.question not in seen:
            seen.add(problem.question)
            problems.append(problem)
    return problems
