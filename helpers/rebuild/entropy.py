"""Where a teacher hesitates: its entropy by the role of the token.

A teacher whose entropy lies on openers has nothing to distil but a die roll.
Dark knowledge needs doubt about content: digits, operators, names.
"""

from __future__ import annotations

import os
import random
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import torch

from helpers.rebuild import texts
from helpers.rebuild.problem import Problem, Step, load_moves
from helpers.rebuild.recipes import encode_written

ROLES = ("digit", "operator", "name or object", "order", "wording", "end")
CLOSING = ("</think>", "<|im_end|>", "\n", "")


def content_words() -> frozenset[str]:
    """Every name, object, container, thing, verb and bus, in all its forms."""
    words = {word for row in load_moves().words.values() for word in row}
    words |= {f"{word}s" for word in words} | {w.capitalize() for w in words}
    return frozenset(words)


def role_of(token: str, *, free: bool, words: frozenset[str]) -> str:
    """The role of one token of a thought.

    `free` marks the place where several next steps are right: its first
    words say which quantity comes next.
    """
    bare = token.strip()
    if free:
        return "order"
    if bare.isdigit():
        return "digit"
    if bare in ("+", "-", "*", "/", "="):
        return "operator"
    if bare in words:
        return "name or object"
    return "end" if bare in CLOSING else "wording"


def free_characters(problem: Problem, steps: Iterable[Step]) -> set[int]:
    """Where a thought could go on with another step: its places, counted in
    characters from the thought's first letter.

    They are the words in which another possible step would begin to differ.
    """
    places: set[int] = set()
    done: list[int] = []
    position = 0
    for step in steps:
        for number in texts.ready_steps(problem.steps, done):
            other = problem.steps[number]
            if other is not step:
                pair = [step.thought, other.thought]
                common = len(os.path.commonprefix(pair))
                word = step.thought.rfind(" ", 0, common) + 1
                places |= set(range(position + word, position + common + 1))
        done.append(problem.steps.index(step))
        position += len(step.thought) + 1
    return places


@torch.no_grad()
def entropy_by_role(
    model: Any, tokenizer: Any, problems: Sequence[Problem]
) -> dict[str, float]:
    """Nats a thought at T = 1, by role, while the teacher reads right ones.

    Each problem's worked thought is put before the teacher, its steps in an
    order drawn anew; the entropy of a prediction belongs to the role of the
    token that stands there.
    """
    rng, words = random.Random(0), content_words()
    totals = Counter(dict.fromkeys(ROLES, 0.0))
    for problem in problems:
        steps = texts.any_order(problem.steps, rng)
        free = free_characters(problem, steps)
        answer = texts.thinking_answer(problem, steps)
        row = encode_written("thinking", problem.question, answer, tokenizer)
        ids = torch.tensor([row["input_ids"]])
        logprobs = model(input_ids=ids).logits[0].log_softmax(-1)
        entropies = -(logprobs.exp() * logprobs).sum(-1)  # (tokens,)
        position = 0
        for place in range(row["labels"].count(-100), ids.size(1)):
            token = tokenizer.decode([row["input_ids"][place]])
            first = position + len(token) - len(token.lstrip(" "))
            role = role_of(token, free=first in free, words=words)
            totals[role] += entropies[place - 1].item()
            position += len(token)
    return {role: total / len(problems) for role, total in totals.items()}
