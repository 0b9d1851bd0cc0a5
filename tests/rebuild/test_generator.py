"""Exact sums, and nothing but arithmetic in templates."""

from __future__ import annotations

import random
import re
from collections import Counter

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


def test_load_templates_says_how_to_restore_a_broken_file(tmp_path):
    broken = tmp_path / "templates.json"
    broken.write_text("[{", encoding="utf-8")
    with pytest.raises(ValueError, match="templates.json.*git checkout"):
        generator.load_templates(broken)


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


IMPOSSIBLE = {
    "chairs": lambda rows, width, people: people > rows * width,
    "change": lambda price, count, paid: paid < price * count,
    "share_whole": lambda whole, friends: whole % friends > 0,
    "buses": lambda _, more, all, both: 3 * (all - both) + more != both,
}


def test_make_problem_impossible_is_really_impossible(drawn):
    """Recomputed from the question, not from the template's own condition."""
    checked = Counter()
    for problem in drawn:
        name = problem.template.removesuffix("_impossible")
        impossible = problem.answer == "no solution"
        assert impossible == bool(problem.conflict)
        if name in IMPOSSIBLE:
            numbers = map(int, re.findall(r"\d+", problem.question))
            assert impossible == IMPOSSIBLE[name](*numbers)
            checked[name] += 1
    assert len(checked) == 4 and min(checked.values()) == 40


@pytest.mark.parametrize(
    ("symbol", "value", "check"),
    [
        ("+", 8, "8 - 2 = 6"),
        ("-", 4, "4 + 2 = 6"),
        ("*", 12, "12 / 2 = 6"),
        ("/", 3, "3 * 2 = 6"),
    ],
)
def test_step_check_is_the_inverse_calculation(symbol, value, check):
    assert generator.Step("x", 6, symbol, 2, value).check == check


@pytest.mark.parametrize(
    ("line", "value"),
    [("a / 2", None), ("a / 0", None), ("a - 7", None), ("a * 200", None),
     ("a / 7", 1)],
)  # fmt: skip
def test_work_out_refuses_fractions_and_large_values(line, value):
    steps = generator.work_out([f"x: {line} = s"], {"a": 7})
    assert (steps and steps[0].value) == value


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("3 * l + d", 17),
        ("l // 2 == 2", True),
        ("l % 2 > 0 and d != 2", False),
        ("l - d < 3", False),
    ],
)
def test_evaluate_expression_computes(expression, value):
    values = {"l": 5, "d": 2}
    assert generator.evaluate_expression(expression, values) == value


@pytest.mark.parametrize(
    "expression",
    ["__import__('os').system('true')", "l.__class__", "(lambda: 1)()",
     "[l][0]", "9 ** 9 ** 9", "1 << 99", "l / 2", "-l", "l < 5 < d", "l or d",
     "'a' * 9", "1.5", "l if d else 1", "(l := 3)", "f'{l}'", "l >= d",
     "unknown + 1", "l +", ""],
)  # fmt: skip
def test_evaluate_expression_refuses_anything_else(expression):
    with pytest.raises(ValueError, match="cannot contain"):
        generator.evaluate_expression(expression, {"l": 5, "d": 2})


def test_generate_problems_same_seed_same_list():
    first = generator.generate_problems(50, seed=3)
    assert first == generator.generate_problems(50, seed=3)
    assert first != generator.generate_problems(50, seed=4)
    excluded = {p.question for p in first}
    others = generator.generate_problems(50, seed=3, exclude=excluded)
    assert not excluded & {p.question for p in others}
