"""Where a teacher hesitates: its entropy by the role of the token.

A teacher whose entropy lies on openers has nothing to distil but a die roll.
Dark knowledge needs doubt about content: digits, operators, names.
"""

import random
from collections import Counter
from collections.abc import Sequence
from typing import Any

import torch
from torch.special import entr

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


def role_of(token: str, words: frozenset[str]) -> str:
    """The role of one token of a thought, by itself."""
    bare = token.strip()
    if bare.isdigit():
        return "digit"
    if bare in ("+", "-", "*", "/", "="):
        return "operator"
    if bare in words:
        return "name or object"
    return "end" if bare in CLOSING else "wording"


def right_tokens(
    problem: Problem, steps: Sequence[Step], tokenizer: Any
) -> dict[int, set[int]]:
    """Where a thought could go on with another step, and the tokens for it.

    By place in the encoded text: the ids of all next tokens that are right,
    where they are more than one.
    """

    def encoded(order: Sequence[Step]) -> list[int]:
        answer = texts.thinking_answer(problem, order)
        row = encode_written("thinking", problem.question, answer, tokenizer)
        return row["input_ids"]

    ids, several = encoded(steps), {}
    order = [problem.steps.index(step) for step in steps]
    for count, taken in enumerate(order):
        for other in texts.ready_steps(problem.steps, order[:count]):
            if other != taken:
                others = encoded([*steps[:count], problem.steps[other]])
                pairs = enumerate(zip(ids, others, strict=False))
                place = next(at for at, (one, two) in pairs if one != two)
                several.setdefault(place, {ids[place]}).add(others[place])
    return several


@torch.no_grad()
def entropy_by_role(
    model: Any, tokenizer: Any, problems: Sequence[Problem]
) -> dict[str, float]:
    """Nats a thought at T = 1, by role, while the teacher reads right ones.

    Each problem's worked thought is put before the teacher, its steps in an
    order drawn anew; the entropy of a prediction belongs to the role of the
    token that stands there. Where several tokens are right, with mass P, the
    entropy is split by the chain rule: P times that among the right ones is
    about their order, the rest belongs to the token's own role.
    """
    rng, words = random.Random(0), content_words()
    totals = Counter(dict.fromkeys(ROLES, 0.0))
    for problem in problems:
        steps = texts.any_order(problem.steps, rng)
        answer = texts.thinking_answer(problem, steps)
        row = encode_written("thinking", problem.question, answer, tokenizer)
        several = right_tokens(problem, steps, tokenizer)
        ids = torch.tensor([row["input_ids"]])
        ids = ids.to(getattr(model, "device", ids.device))
        p = model(input_ids=ids).logits[0].softmax(-1)  # (tokens, vocab)
        for place in range(row["labels"].count(-100), ids.size(1)):
            here = p[place - 1]
            right = here[list(several.get(place, ()))]
            order = entr(right).sum() - entr(right.sum())
            role = role_of(tokenizer.decode([row["input_ids"][place]]), words)
            totals["order"] += order.item()
            totals[role] += (entr(here).sum() - order).item()
    return {role: total / len(problems) for role, total in totals.items()}
