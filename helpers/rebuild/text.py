"""What the mini models read: problems as text."""

from __future__ import annotations

import random
from collections.abc import Iterable
from typing import Any

from helpers.rebuild.composed import texts
from helpers.rebuild.composed.problem import SYMBOLS
from helpers.rebuild.generator import Problem, generate_problems


def write_form(
    form: str, problem: Problem, tokenizer: Any, rng: random.Random
) -> str:
    """A text of the named form, about the problem where it is about one."""
    if form == "at_once":
        return final_sentence(problem)
    if form == "thinking":
        return thinking_answer(problem, rng)
    written = arithmetic(rng)
    if form == "pages":  # a Qwen3 has met its think tags, a Gemma has not
        known = "<think>" in tokenizer.get_vocab()
        written = texts.pages(rng, texts.TAGS + ["think"] * known)
    return prose(problem, rng) if form == "prose" else written


def final_sentence(problem: Problem) -> str:
    """How every mini model states its result."""
    if problem.conflict:
        return "There is no solution."
    return f"The answer is {problem.answer}."


def thought(problem: Problem, rng: random.Random) -> str:
    """The teacher's worked thought; its wording varies, its sums do not."""
    openers = ["First, ", "To start, ", "Step 1: "]
    links = ["Then ", "Next, ", "After that, "]
    parts = [
        rng.choices(openers if i == 0 else links, weights=[6, 3, 1])[0]
        + f"{step.label}: {step.equation}."
        for i, step in enumerate(problem.steps)
    ]
    if problem.told:  # copied first, so that the two numbers stand together
        parts.append(f"The question says {problem.told}.")
    if problem.conflict:
        parts.append(f"But {problem.conflict}. This cannot be.")
    else:
        parts.append(f"Check: {problem.steps[-1].check}.")
    return " ".join(parts)


def thinking_answer(problem: Problem, rng: random.Random) -> str:
    """`<think>...</think>`, a blank line, the final sentence."""
    worked = thought(problem, rng)
    return f"<think>\n{worked}\n</think>\n\n{final_sentence(problem)}"


def solution(problem: Problem, rng: random.Random) -> str:
    """A worked solution without a thinker's connectives and checks."""
    if rng.random() < 0.5:
        lines = [f"{s.label}: {s.equation}." for s in problem.steps]
    else:
        lines = [f"{s.equation} {s.label}." for s in problem.steps]
    if problem.conflict:
        lines.append(f"{problem.conflict}, so there is no solution.")
    else:
        lines.append(f"So it is {problem.answer}.")
    return " ".join(lines)


def prose(problem: Problem, rng: random.Random) -> str:
    """A worked solution in running text, as books print it after a question.

    It never occurs in a chat, and never inside `<think>`.
    """
    if rng.random() < 2 / 3:
        return solution(problem, rng)
    worked = thought(problem, rng)
    if problem.conflict:
        return f"{worked} So there is no solution."
    return f"{worked} So it is {problem.answer}."


def arithmetic(rng: random.Random) -> str:
    """A line of sums: half in wide ranges, half as the problems need them."""
    sums = [any_sum(rng) for _ in range(3)]
    sums += [
        f"{step.equation}."
        for problem in generate_problems(2, seed=rng.getrandbits(32))
        for step in problem.steps
    ]
    rng.shuffle(sums)
    return " ".join(sums)


def any_sum(rng: random.Random) -> str:
    """One sum; taking away and adding are the harder ones, and come more."""
    symbol = rng.choice("++---**/")
    if symbol in "+-":
        a, b = rng.randint(1, 300), rng.randint(1, 120)
        a, b = (max(a, b), min(a, b)) if symbol == "-" else (a, b)
    elif rng.random() < 0.3 and symbol == "*":
        a, b = rng.randint(2, 6), rng.randint(10, 120)
    else:
        a, b = rng.randint(2, 15), rng.randint(2, 40)
        a = a * b if symbol == "/" else a
    return f"{a} {symbol} {b} = {SYMBOLS[symbol](a, b)}."


def corpus(seed: int, count: int = 4000) -> Iterable[str]:
    """Text for the tokenizers: every form a model will read or write."""
    rng = random.Random(seed)
    held_out = generate_problems(count // 10, seed=seed + 1, held_out=True)
    for problem in [*generate_problems(count, seed=seed), *held_out]:
        yield f"Question: {problem.question}"
        yield f"{problem.question}\n{solution(problem, rng)}"
        yield thought(problem, rng) + " " + final_sentence(problem)
        yield "Let me think. I think so. user model assistant system"
