"""The three mini models: architectures, sizes, and what each is fed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from transformers import PreTrainedModel

from helpers.rebuild.composed import recipes, vocabulary

qwen = partial(recipes.qwen, vocabulary=896)
gemma = partial(recipes.gemma, vocabulary=1024)


@dataclass(frozen=True)
class Recipe:
    """How one mini model is made.

    `mix` gives the share of each text form: thinking, at_once, prose, sums,
    pages.
    """

    name: str
    build: Callable[[], PreTrainedModel]
    tokenizer: Callable[[Any], Any]
    template: str
    mix: dict[str, float]
    examples: int
    batch_size: int
    learning_rate: float = 2e-3

    @property
    def teacher(self) -> bool:
        return "thinking" in self.mix

    @property
    def trained(self) -> str:
        return f"{self.examples:,} generated examples, one epoch"

    @property
    def optimizer(self) -> str:
        rate = self.learning_rate
        return f"AdamW, batch {self.batch_size}, cosine from {rate}"


TEACHER = Recipe(
    name="mini-qwen3",
    build=partial(qwen, hidden=192, layers=4, heads=6),
    tokenizer=vocabulary.train_qwen_tokenizer,
    template=vocabulary.QWEN_THINKING_TEMPLATE,
    mix={"thinking": 0.8, "sums": 0.2},
    examples=160_000,
    batch_size=16,
)
GEMMA = Recipe(
    name="mini-gemma3",
    build=gemma,
    tokenizer=vocabulary.train_gemma_tokenizer,
    template=vocabulary.GEMMA_TEMPLATE,
    mix={"at_once": 0.22, "prose": 0.45, "sums": 0.25, "pages": 0.08},
    examples=288_000,
    batch_size=32,
)
RECIPES = (
    TEACHER,
    GEMMA,
    replace(
        TEACHER,
        name="mini-qwen3-small",
        build=partial(qwen, hidden=128, layers=3, heads=4),
        template=vocabulary.QWEN_TEMPLATE,
        mix=GEMMA.mix,
        batch_size=32,
    ),
)
