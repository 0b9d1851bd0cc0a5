"""Exact sums, and nothing but arithmetic in templates."""

from __future__ import annotations

import random
import re
from collections import Counter

import pytest

from helpers.answers import gold_answer
from helpers.rebuild import generator


def one_of_each() -> list[generator.Problem]:
    """Twenty draws of every template."""
    rng = random.Random(11)
    return [
        generator.make_problem(template, rng)
        for template in generator.load_templates()
        for _ in range(20)
    ]


def test_load_templates_at_least_24_with_names_of_their_own():
    templates = generator.load_templates()
    assert len({t["name"] for t in templates}) == len(templates) >= 24
    assert len({t["text"] for t in templates}) >= 24
    assert sum(t.get("held_out", False) for t in templates) >= 3


def test_load_templates_says_how_to_restore_a_broken_file(tmp_path):
    broken = tmp_path / "templates.json"
    broken.write_text("[{", encoding="utf-8")
    with pytest.raises(ValueError, match="templates.json.*git checkout"):
        generator.load_templates(broken)


def test_make_problem_gold_is_what_the_steps_compute():
    for problem in one_of_each():
        known = {int(n) for n in re.findall(r"\d+", problem.question)}
        known |= {2, 3, 4}  # "twice", "half", "two ends"
        known |= {n + 1 for n in known}
        if problem.template == "share_whole_impossible":
            whole, friends = map(int, re.findall(r"\d+", problem.question))
            known |= {whole // friends, whole // friends + 1}
        for step in problem.steps:
            left, right = step.left, step.right
            exact = {
                "+": left + right,
                "-": left - right,
                "*": left * right,
                "/": left / right,
            }[step.symbol]
            assert step.value == exact and 1 <= step.value <= 999
            assert {left, right} <= known, problem
            known.add(step.value)
        values = {str(step.value) for step in problem.steps}
        assert problem.answer in values | {"no solution"}
        assert gold_answer(problem.gold) == problem.answer


def test_make_problem_fills_every_brace_with_different_names():
    for problem in one_of_each():
        assert "{" not in problem.question + problem.gold
        assert problem.question.endswith("?")


def test_make_problem_impossible_is_really_impossible():
    """Recomputed from the question, not from the template's own condition."""
    checked = Counter()
    for problem in one_of_each():
        numbers = [int(n) for n in re.findall(r"\d+", problem.question)]
        name = problem.template.removesuffix("_impossible")
        impossible = problem.answer == "no solution"
        assert impossible == bool(problem.conflict)
        assert impossible == problem.template.endswith("_impossible")
        if name == "chairs":
            rows, width, people = numbers
            assert impossible == (people > rows * width)
        elif name == "change":
            price, count, paid = numbers
            assert impossible == (paid < price * count)
        elif name == "share_whole":
            assert impossible == (numbers[0] % numbers[1] > 0)
        elif name == "buses":
            _, more, everyone, both = numbers
            library = everyone - both
            assert impossible == (3 * library + more != both)
        else:
            continue
        checked[name] += 1
    assert len(checked) == 4 and min(checked.values()) == 40


def test_step_check_is_the_inverse_calculation():
    for left, symbol, right, value, check in (
        (6, "+", 2, 8, "8 - 2 = 6"),
        (6, "-", 2, 4, "4 + 2 = 6"),
        (6, "*", 2, 12, "12 / 2 = 6"),
        (6, "/", 2, 3, "3 * 2 = 6"),
    ):
        step = generator.Step("x", left, symbol, right, value)
        assert step.check == check


def test_work_out_refuses_fractions_and_large_values():
    assert generator.work_out(["x: a / 2 = s"], {"a": 7}) is None
    assert generator.work_out(["x: a / 0 = s"], {"a": 7}) is None
    assert generator.work_out(["x: a - 7 = s"], {"a": 7}) is None
    assert generator.work_out(["x: a * 200 = s"], {"a": 7}) is None
    [step] = generator.work_out(["x: a / 7 = s"], {"a": 7})
    assert step.value == 1


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
    found = generator.evaluate_expression(expression, {"l": 5, "d": 2})
    assert found == value


@pytest.mark.parametrize(
    "expression",
    [
        "__import__('os').system('true')",
        "l.__class__",
        "(lambda: 1)()",
        "[l][0]",
        "9 ** 9 ** 9",
        "1 << 99",
        "l / 2",
        "-l",
        "l < 5 < d",
        "l or d",
        "'a' * 9",
        "1.5",
        "l if d else 1",
        "(l := 3)",
        "f'{l}'",
        "l >= d",
        "unknown + 1",
        "l +",
        "",
    ],
)
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
