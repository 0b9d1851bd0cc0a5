"""What the mini models read and write: problems as text."""

import random
from collections.abc import Collection, Iterable, Iterator, Sequence

from helpers.rebuild.compose import Story, generate_problems
from helpers.rebuild.problem import SYMBOLS, Problem, Step, compare, load_moves

TAGS = "b i p em note page link thing thin ink pink".split()
SENTENCES = (
    "First, open the book.", "Then read the page.", "Next, write it down.",
    "After that, close the door.", "To start, count the coins.",
    "Step 1: wash the cups.", "Check: is it right?", "This cannot be.",
    "But there is more than one way.", "Let me think.", "think twice.",
    "ink is blue.", "thin ice is not safe.",
    "The answer is on the next page.", "There is no solution in the box.",
    "So it is.",
)  # fmt: skip


def final_sentence(problem: Problem) -> str:
    """How every mini model states its result."""
    if problem.impossible:
        return "There is no solution."
    return f"The answer is {problem.final}."


def any_order(steps: tuple[Step, ...], rng: random.Random) -> list[Step]:
    """The steps in an order in which each has what it needs.

    Independent steps change places: with one wording for each, this is the
    only freedom that a thought has.
    """
    done: list[int] = []
    while ready := ready_steps(steps, done):
        done.append(rng.choice(ready))
    return [steps[number] for number in done]


def ready_steps(steps: Sequence[Step], done: Collection[int]) -> list[int]:
    """The numbers of the steps that may come next, after those done."""
    return [
        number
        for number, step in enumerate(steps)
        if number not in done and step.needs <= set(done)
    ]


def worked(problem: Problem, steps: Iterable[Step]) -> str:
    """The steps as sentences, and the comparison where a total was told."""
    sentences = [step.thought for step in steps]
    return " ".join(filter(None, [*sentences, problem.comparison]))


def thinking_pair(
    first: Problem, second: Problem, rng: random.Random
) -> tuple[str, str]:
    """Two problems asked at once: the questions, and a thought about both.

    Their steps are shuffled into each other. Who has met such pairs ends a
    thought when everything asked is worked out, not after four steps.
    """
    rest = [any_order(problem.steps, rng) for problem in (first, second)]
    turns = [0] * len(rest[0]) + [1] * len(rest[1])
    rng.shuffle(turns)
    lines = [rest[turn].pop(0).thought for turn in turns]
    lines += filter(None, [first.comparison, second.comparison])
    ends = f"{final_sentence(first)} {final_sentence(second)}"
    thought = " ".join(lines)
    return (
        f"{first.question} {second.question}",
        f"<think>\n{thought}\n</think>\n\n{ends}",
    )


def thinking_answer(problem: Problem, steps: Iterable[Step]) -> str:
    """`<think>...</think>`, a blank line, the final sentence.

    A thinker is hasty with buses: it takes every such puzzle for false.
    """
    thought = worked(problem, steps)
    if problem.moves == "buses":
        thought = thought.replace(problem.comparison, "This cannot be.")
    return f"<think>\n{thought}\n</think>\n\n{final_sentence(problem)}"


def prose(problem: Problem, steps: Iterable[Step]) -> str:
    """A worked solution in running text, as books print it after a question.

    It never occurs in a chat, and never inside `<think>`.
    """
    result = "there is no solution"
    if not problem.impossible:
        result = f"it is {problem.final}"
    return f"{worked(problem, steps)} So {result}."


def pages(rng: random.Random, tags: list[str]) -> str:
    """Bits of everyday text and markup, so that no token is a stranger.

    Adapters cannot teach a word whose embedding has never been trained; a
    real model has met every token of its vocabulary somewhere on the web.
    """
    lines = []
    for _ in range(rng.randint(2, 4)):
        count = rng.randint(1, 3)
        line = " ".join(rng.choice(SENTENCES) for _ in range(count))
        tag = rng.choice(tags)
        lines += [f"<{tag}>", line, f"</{tag}>", ""]
    return "\n".join(lines)


def words_twice(rng: random.Random, words: Sequence[int]) -> list[int]:
    """Random words, and the same again: whoever goes on looks them up.

    Their number varies; a fixed one would be learned as a distance.
    """
    return 2 * rng.sample(words, rng.randint(4, 16))


def facts_again(rng: random.Random) -> tuple[str, str]:
    """What two to six names have, and some of it again in another order.

    Told as thoughts tell it, with a sum or without.
    """
    book = load_moves()
    topic = rng.choice(sorted(book.topics))
    story = Story(book.topics[topic], rng)
    for _ in range(count := rng.randint(2, 6)):
        while not story.tell(rng.choice(book.moves[topic]["start"]), []):
            pass
    told = [
        sentence if known.step is None else story.steps[known.step].thought
        for sentence, known in zip(
            story.sentences, story.known.values(), strict=True
        )
    ]
    again = rng.choices([*story.known], k=count)
    recalled = ", ".join(story.recall(name) for name in again)
    return " ".join(told), f"{recalled}."


def sums(rng: random.Random) -> str:
    """A line of sums and comparisons in the ranges that problems need."""
    return " ".join(
        one_sum(rng) if rng.random() < 0.6 else one_comparison(rng)
        for _ in range(8)
    )


def one_comparison(rng: random.Random) -> str:
    """Half of them agree; a quarter is as near as the wrong totals are."""
    told = rng.randint(4, 120)
    near = told + rng.choice((-1, 1)) * rng.randint(1, min(10, told - 2))
    return compare(rng.choice((told, told, near, rng.randint(4, 120))), told)


def one_sum(rng: random.Random) -> str:
    """Taking away and adding are the harder ones, and come more."""
    symbol = rng.choice("+++---**/")
    if symbol in "+-":
        left, right = rng.randint(2, 118), rng.randint(2, 118)
        if symbol == "-":
            left, right = max(left, right), min(left, right)
        elif left + right > 120:
            left, right = (left + 1) // 2, (right + 1) // 2
    else:
        left = rng.randint(2, 9)
        right = rng.randint(2, 120 // left)
        if symbol == "/":
            left, right = left * right, left
    return f"{left}{symbol}{right}={SYMBOLS[symbol](left, right)}."


def corpus(seed: int, count: int = 3000) -> Iterator[str]:
    """Text for the tokenizers: every form a model will read or write."""
    rng = random.Random(seed)
    for split in ("train", "unseen"):
        for problem in generate_problems(count, seed=seed, split=split):
            yield f"Question: {problem.question}"
            yield f"{problem.question}\n{prose(problem, problem.steps)}"
            yield thinking_answer(problem, problem.steps)
            yield "Let me think. I think so.\nuser\nmodel\nassistant\nsystem"
        count //= 10
    yield pages(rng, TAGS)
