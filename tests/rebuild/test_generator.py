"""Exact sums, and nothing but arithmetic in templates."""

from __future__ import annotations

import random
import re

import pytest

from helpers.answers import gold_answer
from helpers.rebuild import generator
from helpers.rebuild.composed.problem import SYMBOLS


@pytest.fixture(scope="module")
def drawn() -> list[generator.Problem]:
    """Twenty draws of every template."""
    rng = random.Random(11)
    return [
        generator.make_problem(template, rng)
        for template in generator.load_templates()
        for _ in range(20)
    ]


def test_make_problem_gold_is_what_the_steps_compute(drawn):
    for problem in drawn:
        assert "{" not in problem.question + problem.gold
        known = {int(n) for n in re.findall(r"\d+", problem.question)}
        known |= {2, 3, 4}  # "twice", "half", "two ends"
        known |= {n + 1 for n in known}
        if problem.template == "share_whole_impossible":
            whole, friends = map(int, re.findall(r"\d+", problem.question))
            known |= {whole // friends, whole // friends + 1}
        for step in problem.steps:
            left, right = step.left, step.right
            assert step.symbol != "/" or left % right == 0
            exact = SYMBOLS[step.symbol](left, right)
            assert step.value == exact and 1 <= step.value <= 999
            assert {left, right} <= known, problem
            known.add(step.value)
        values = {str(step.value) for step in problem.steps}
        assert problem.answer in values | {"no solution"}
        assert gold_answer(problem.gold) == problem.answer


@pytest.mark.parametrize(
    "expression",
    ["__import__('os').system('true')", "l.__class__", "(lambda: 1)()",
     "[l][0]", "9 ** 9 ** 9", "f'{l}'", "unknown + 1", "l +", ""],
)  # fmt: skip
def test_evaluate_expression_refuses_anything_else(expression):
    with pytest.raises(ValueError, match="cannot contain"):
        generator.evaluate_expression(expression, {"l": 5, "d": 2})
