"""Compose word problems from moves: any number, fresh, from a seed.

A problem is a chain of moves, each a sentence, and an end that asks; every
quantity is needed. Told totals and the three buses come as twins: one
agrees, one contradicts, and they differ in that number alone.
"""

import hashlib
import random
from collections.abc import Iterable
from dataclasses import dataclass, replace

from helpers.rebuild.problem import (
    Move,
    Problem,
    Step,
    Topic,
    load_moves,
    make_problem,
    work_out,
)

SPLITS = ("train", "validation", "test", "unseen", "longer", "buses")
LENGTHS = {2: 3, 3: 4, 4: 4}  # steps of a problem, and their weights
LONGER = {5: 1}
TWINS = 0.3  # share of problems with a told total, agreeing or not
BUSES = 0.02  # share of the draws in the train split, a pair each
HELD_OUT = 10  # one composition in so many is never trained on
BODY = {"relation": 6, "start": 2, "event": 2}


@dataclass(frozen=True)
class Quantity:
    """A known value, the step that gave it, and whether it is still unused.

    `origins` tells quantities that differ by told numbers alone: asking for
    their difference would make the sums before it superfluous.
    """

    value: int
    step: int | None
    origins: frozenset[int]
    unused: bool = True


class Story:
    """A problem while it is being told."""

    def __init__(self, topic: Topic, rng: random.Random) -> None:
        words = load_moves().words
        self.topic, self.rng = topic, rng
        self.names = iter(rng.sample(words[topic.who], 8))
        self.words = {"x": "{x}", "t": "{t}", "now": ""}
        self.words |= zip("cd", rng.sample(words["container"], 2), strict=True)
        for slot, kind in zip("ovF", ("object", "verb", "name"), strict=True):
            self.words[slot] = rng.choice(words[kind])
        self.known: dict[str, Quantity] = {}
        self.sentences: list[str] = []
        self.steps: list[Step] = []
        self.moves: list[str] = []
        self.result = 0

    def choose(self, count: int) -> list[str]:
        """Up to `count` known names, mostly such as nothing has used yet."""
        names = sorted(self.known, key=lambda _: self.rng.random())
        if self.rng.random() < 0.75:
            names.sort(key=lambda name: not self.known[name].unused)
        return names[:count]

    def draw_numbers(
        self, move: Move, values: dict[str, int]
    ) -> tuple[dict[str, int], Step | None]:
        """Numbers j and k, and the move's step if it has a sum.

        No numbers where ten draws gave no sum that is whole and in bounds.
        """
        for _ in range(10):
            j, k = self.rng.randint(*move.j), self.rng.randint(*move.k)
            numbers = {**values, "j": j, "k": k}
            step = work_out(move.sum, numbers) if move.sum else None
            if not move.sum or step and 2 <= step.value <= self.topic.limit:
                return numbers, step
        return {}, None

    def tell(self, move: Move, names: list[str]) -> bool:
        """Add a move that refers to these names; False if no number fits."""
        used = [self.known[name] for name in names]
        values = [quantity.value for quantity in used]
        numbers, step = self.draw_numbers(
            move, dict(zip("ab", values, strict=False))
        )
        if not numbers:
            return False
        roles = dict(zip("AB", names, strict=False))
        if move.kind in ("start", "relation"):
            roles["N"] = next(self.names)
        fact = self.topic.fact
        if move.kind == "event":
            self.words["now"], fact = self.topic.now, self.topic.changed
        words = {**self.words, **roles, **numbers}
        self.sentences.append(move.text.format(**words))
        self.moves.append(move.name)
        for name, quantity in zip(names, used, strict=True):
            self.known[name] = replace(quantity, unused=False)
        if step:
            sentence = (move.step or fact).format(**words)
            needs = frozenset(q.step for q in used) - {None}
            if names and move.kind != "event":  # it names what it changes
                recalled = [self.recall(name) for name in names]
                sentence = f"{' and '.join(recalled)}, so {sentence}"
            sentence = sentence[0].upper() + sentence[1:]
            self.steps.append(replace(step, sentence=sentence, needs=needs))
        if move.kind in ("start", "relation", "event"):
            sums = step is not None and step.symbol in "+-"
            kin = [quantity.origins for quantity in used if sums]
            self.known[roles.get("N") or roles["A"]] = Quantity(
                step.value if step else numbers.get("a", numbers["k"]),
                len(self.steps) - 1 if step else None,
                frozenset().union(*kin) or frozenset([len(self.moves)]),
            )
        return True

    def recall(self, name: str) -> str:
        """What is known of a name, in the few words that a thought spends.

        "Zoe has 9 more than Ken" takes two look-ups, who and how many. With
        Ken's number written out, each is one.
        """
        words = {**self.words, "N": name, "x": self.known[name].value}
        return self.topic.brief.format(**words)

    def end(self, move: Move) -> bool:
        """Ask, so that nothing stays unused; False if this end cannot."""
        names = [name for name, q in self.known.items() if q.unused]
        two = "{B}" in move.text
        others = [name for name in self.known if name not in names]
        if two and len(names) == 1 and others:
            names.append(self.rng.choice(others))
        if len(names) != 1 + two:
            return False
        self.rng.shuffle(names)
        first, last = self.known[names[0]], self.known[names[-1]]
        if move.sum == "a - b" and first.origins & last.origins:
            return False
        computed = move.kind == "told" or not move.sum  # it is asked for
        if computed and first.step is None or not self.tell(move, names):
            return False
        self.result = first.value if computed else self.steps[-1].value
        return True


def compose(
    topic: str, steps: int, *, told: bool, rng: random.Random
) -> list[Problem]:
    """One problem of exactly so many steps; [] where the draw failed.

    With `told` a pair of twins: the agreeing one, the contradicting one.
    """
    book = load_moves()
    story, moves = Story(book.topics[topic], rng), book.moves[topic]
    end = rng.choice(moves["told" if told else "end"])
    kinds = ["start"]
    while len(story.steps) < steps - bool(end.sum):
        kind = kinds[-1]
        full = len(story.sentences) > steps + 1 or kinds.count("event") > 2
        if kind not in moves or full:
            return []
        move = rng.choice(moves[kind])
        count = ("{A}" in move.text) + ("{B}" in move.text)
        names = story.choose(count)
        if len(names) < count or not story.tell(move, names):
            return []
        if kind != "event":  # what changes, changes after all else was told
            kind = rng.choices(list(BODY), list(BODY.values()))[0]
        kinds.append(kind)
    if not story.end(end) or len(story.steps) != steps:
        return []
    totals = [None]
    if told:
        total = story.steps[-1].value
        shift = rng.randint(1, min(10, total - 2))
        totals = [total, total + rng.choice((-1, 1)) * shift]
    return [
        make_problem(
            " ".join(story.sentences).replace("{t}", str(total)),
            story.steps,
            f"{topic}: {' '.join(story.moves)}",
            result=story.result,
            told=total,
        )
        for total in totals
    ]


def three_buses(rng: random.Random) -> list[Problem]:
    """Twins of the puzzle: three unknowns, four claims, true or not.

    Nothing but the total of two buses is wrong; the steps take it at its
    word, and meet it again at the end.
    """
    book = load_moves()
    names = dict(zip("ABC", rng.sample(book.words["bus"], 3), strict=True))
    times, more = rng.randint(2, 4), rng.randint(3, 30)
    asked = rng.randint(4, 18)
    both = times * asked + asked + more
    shift = 0
    while shift == 0 or asked - shift < 2:
        shift = rng.choice((-1, 1)) * rng.randint(1, 8)
    problems = []
    for told in (both, both + shift):
        values = {"j": times, "k": more, "t": asked + both, "y": told}
        question = book.buses["text"].format(**names, **values)
        steps = []
        for row in book.buses["steps"]:
            step = work_out(row["sum"], values)
            values[row["gives"]] = step.value
            sentence = row["step"].format(**names, x="{x}")
            needs = frozenset(row["needs"])
            steps.append(replace(step, sentence=sentence, needs=needs))
        result = steps[0].value
        problems.append(
            make_problem(question, steps, "buses", result=result, told=told)
        )
    return problems


def held_out(problem: Problem) -> bool:
    """Whether a composition is kept from every model, by its hash."""
    digest = hashlib.sha256(problem.moves.encode()).hexdigest()
    return int(digest, 16) % HELD_OUT == 0


def draw(
    split: str, rng: random.Random, *, lengths: dict[int, int]
) -> list[Problem]:
    """The next problem of a split, or its twins; [] where a draw failed."""
    if split == "buses" or (split == "train" and rng.random() < BUSES):
        return three_buses(rng)
    topics = load_moves().topics
    shares = [topic.share for topic in topics.values()]
    topic = rng.choices(list(topics), shares)[0]
    steps = rng.choices(list(lengths), list(lengths.values()))[0]
    told = rng.random() < TWINS / (2 - TWINS)  # a pair is two problems
    for _ in range(100):
        problems = compose(topic, steps, told=told, rng=rng)
        if problems and split == "longer":
            return problems
        if problems and held_out(problems[0]) == (split == "unseen"):
            return problems
    return []


def generate_problems(
    count: int,
    *,
    seed: int,
    split: str = "test",
    exclude: Iterable[str] = (),
    lengths: dict[int, int] | None = None,
) -> list[Problem]:
    """`count` different problems, none of whose questions is in `exclude`.

    The same seed and split give the same list, twins side by side.

    Args:
        split: train, validation or test (compositions that the mini models
            have met), unseen (held out), longer (one step more than any
            model met) or buses.
        lengths: weights of 2, 3, ... steps, instead of the split's own.
    """
    if split not in SPLITS:
        raise ValueError(f"unknown split {split!r}: choose one of {SPLITS}")
    rng = random.Random(f"{split} {seed}")
    lengths = lengths or (LONGER if split == "longer" else LENGTHS)
    seen, problems = set(exclude), []
    while len(problems) < count:
        drawn = draw(split, rng, lengths=lengths)
        new = [p for p in drawn if p.question not in seen]
        if len(new) == len(drawn) <= count - len(problems):
            seen |= {problem.question for problem in new}
            problems += new
    return problems
