"""The mini models: architectures, sizes, and what each is fed."""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, partial
from typing import Any

from transformers import (
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    PreTrainedModel,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from helpers import chat
from helpers.rebuild import texts, vocabulary
from helpers.rebuild.problem import Problem

Example = dict[str, list[int]]
EARLY = {2: 5, 3: 4, 4: 1}  # steps of the problems in the first fifth
LATER = {2: 2, 3: 3, 4: 5}  # and after it

end_of_turn = cache(chat.end_of_turn)  # the template is rendered once


@dataclass(frozen=True)
class Phase:
    """A stretch of a training.

    until: its last token, counted from the training's first.
    mix: the share of each text form; helpers.rebuild.cards says what each is.
    lengths: weights of the problems' numbers of steps.
    words: out of how many different tokens `copies` draws.
    """

    until: int
    mix: dict[str, float]
    lengths: dict[int, int] = field(default_factory=lambda: LATER)
    words: int = 1024
    batch_tokens: int = 4096


# Looking a number up by its name is not learned from problems alone. It
# begins with copies out of few words, and is there after lists of facts.
OPENING = (
    Phase(600_000, {"copies": 1.0}, words=32, batch_tokens=2400),
    Phase(1_000_000, {"copies": 1.0}, words=128, batch_tokens=2400),
    Phase(1_400_000, {"copies": 1.0}, batch_tokens=2400),
    Phase(2_600_000, {"lists": 0.75, "copies": 0.25}, batch_tokens=2400),
)


@dataclass(frozen=True)
class Recipe:
    """How one mini model is made.

    mix: what it reads after the opening.
    tokens: how much it reads, prompts included.
    """

    name: str
    build: Callable[[], PreTrainedModel]
    tokenizer: Callable[[Any], Any]
    template: str
    mix: dict[str, float]
    tokens: int
    learning_rate: float = 3e-3
    opening: tuple[Phase, ...] = OPENING

    @property
    def teacher(self) -> bool:
        return "thinking" in self.mix

    @property
    def opening_tokens(self) -> int:
        return max((phase.until for phase in self.opening), default=0)

    @property
    def phases(self) -> tuple[Phase, ...]:
        until = max(self.tokens // 5, self.opening_tokens)
        early = Phase(until, self.mix, EARLY)
        return (*self.opening, early, Phase(self.tokens, self.mix))

    @property
    def trained(self) -> str:
        return f"{self.tokens:,} tokens of generated text, nothing twice"

    @property
    def optimizer(self) -> str:
        return (
            f"Muon and AdamW, {self.phases[-1].batch_tokens:,} tokens a step, "
            f"rate {self.learning_rate}, falling over the last third"
        )


def qwen(
    *, hidden: int, layers: int, heads: int, vocabulary: int = 768
) -> PreTrainedModel:
    """A Qwen3 with 32-wide heads; the vocabulary is padded to such rows."""
    config = Qwen3Config(
        vocab_size=vocabulary,
        hidden_size=hidden,
        intermediate_size=3 * hidden,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=2,
        head_dim=32,
        tie_word_embeddings=True,
        max_position_embeddings=1024,
    )
    return Qwen3ForCausalLM(config)


def gemma(
    *,
    hidden: int = 128,
    inner: int = 384,
    layers: int = 4,
    heads: int = 4,
    window: int = 64,
) -> PreTrainedModel:
    """A Gemma 3 whose layers alternate sliding and full attention."""
    config = Gemma3TextConfig(
        vocab_size=896,
        hidden_size=hidden,
        intermediate_size=inner,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=1,
        head_dim=32,
        query_pre_attn_scalar=32,
        sliding_window=window,
        layer_types=["sliding_attention", "full_attention"] * (layers // 2),
        max_position_embeddings=1024,
    )
    return Gemma3ForCausalLM(config)


AT_ONCE = {
    "at_once": 0.2,
    "prose": 0.55,
    "lists": 0.05,
    "sums": 0.15,
    "pages": 0.05,
}
UNTAUGHT = {  # as much of all else; three tokens in four are prose
    "mix": {"at_once": 0.45, "lists": 0.1, "sums": 0.35, "pages": 0.1},
    "tokens": 6_000_000,
}
TEACHER = Recipe(
    name="mini-qwen3",
    build=partial(qwen, hidden=192, layers=4, heads=6),
    tokenizer=vocabulary.train_qwen_tokenizer,
    template=vocabulary.QWEN_THINKING_TEMPLATE,
    mix={"thinking": 0.5, "pairs": 0.2, "lists": 0.1, "sums": 0.2},
    tokens=12_000_000,
)
GEMMA = Recipe(
    name="mini-gemma3",
    build=gemma,
    tokenizer=vocabulary.train_gemma_tokenizer,
    template=vocabulary.GEMMA_TEMPLATE,
    mix=AT_ONCE,
    tokens=16_000_000,
)
QWEN = replace(
    GEMMA,
    name="mini-qwen3-small",
    build=partial(qwen, hidden=128, layers=3, heads=4),
    tokenizer=vocabulary.train_qwen_tokenizer,
    template=vocabulary.QWEN_TEMPLATE,
)
RECIPES = (
    TEACHER,
    GEMMA,
    QWEN,
    replace(GEMMA, name="mini-gemma3-untaught", **UNTAUGHT),
    replace(QWEN, name="mini-qwen3-small-untaught", **UNTAUGHT),
)


@cache
def word_ids(tokenizer: Any) -> list[int]:
    """Every token that is not a control token, in a fixed random order."""
    known = set(tokenizer.get_vocab().values())
    ids = sorted(known - set(tokenizer.all_special_ids))
    return random.Random(0).sample(ids, len(ids))


def encode_form(
    form: str,
    problem: Problem,
    tokenizer: Any,
    rng: random.Random,
    *,
    partners: Sequence[Problem] = (),
    words: int = 0,
) -> Example:
    """One training example of the named form; questions carry no label.

    partners: where a pair finds its second problem, about another topic.
    words: out of how many tokens copies are drawn.
    """
    if form == "copies":
        ids = texts.words_twice(rng, word_ids(tokenizer)[:words])
        half = len(ids) // 2 + 1
        return {"input_ids": ids, "labels": [-100] * half + ids[half:]}
    question, steps = problem.question, texts.any_order(problem.steps, rng)
    if form == "pairs":
        alike = (problem.topic, "buses")
        others = [other for other in partners if other.topic not in alike]
        second = rng.choice(others)
        question, written = texts.thinking_pair(problem, second, rng)
    elif form == "thinking":
        written = texts.thinking_answer(problem, steps)
    elif form == "at_once":
        written = texts.final_sentence(problem)
    elif form == "lists":
        question, written = texts.facts_again(rng)
    else:
        written = texts.sums(rng)
    if form == "prose":
        written = texts.prose(problem, steps)
    if form == "pages":  # a Qwen3 has met its think tags, a Gemma not
        known = "<think>" in tokenizer.get_vocab()
        written = texts.pages(rng, texts.TAGS + ["think"] * known)
    return encode_written(form, question, written, tokenizer)


def encode_written(
    form: str, question: str, written: str, tokenizer: Any
) -> Example:
    """A text as tokens with labels, after the question that it answers."""
    if form in ("thinking", "pairs", "at_once"):
        prompt = chat.prompt_ids(chat.student_messages(question), tokenizer)
        written = written.removeprefix(chat.THINK_OPEN)
        written += end_of_turn(tokenizer)
    else:
        prompt = [tokenizer.bos_token_id] if tokenizer.bos_token_id else []
        if form in ("prose", "lists"):
            prompt += chat.encode_text(question, tokenizer)
            written = "\n" + written
        written += tokenizer.eos_token
    ids = chat.encode_text(written, tokenizer)
    return {"input_ids": prompt + ids, "labels": [-100] * len(prompt) + ids}
