"""The three mini models: architectures, sizes, and what each is fed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from transformers import (
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    PreTrainedModel,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from helpers.rebuild import text


@dataclass(frozen=True)
class Recipe:
    """How one mini model is made.

    `mix` gives the share of each text form: thinking, at_once, prose, sums,
    pages.
    """

    name: str
    build: Callable[[], PreTrainedModel]
    tokenizer: Callable[[int], Any]
    template: str
    mix: dict[str, float]
    examples: int
    batch_size: int
    learning_rate: float = 2e-3


def qwen(*, hidden: int, layers: int, heads: int) -> PreTrainedModel:
    """A Qwen3 with 32-wide heads and a vocabulary padded to 896 rows."""
    config = Qwen3Config(
        vocab_size=896,
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


def gemma() -> PreTrainedModel:
    """A Gemma 3 whose layers alternate sliding and full attention."""
    config = Gemma3TextConfig(
        vocab_size=1024,
        hidden_size=128,
        intermediate_size=384,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=1,
        head_dim=32,
        query_pre_attn_scalar=32,
        sliding_window=64,
        layer_types=["sliding_attention", "full_attention"] * 2,
        max_position_embeddings=1024,
    )
    return Gemma3ForCausalLM(config)


AT_ONCE = {"at_once": 0.22, "prose": 0.45, "sums": 0.25, "pages": 0.08}
RECIPES = (
    Recipe(
        name="mini-qwen3",
        build=lambda: qwen(hidden=192, layers=4, heads=6),
        tokenizer=text.train_qwen_tokenizer,
        template=text.QWEN_THINKING_TEMPLATE,
        mix={"thinking": 0.8, "sums": 0.2},
        examples=160_000,
        batch_size=16,
    ),
    Recipe(
        name="mini-gemma3",
        build=gemma,
        tokenizer=text.train_gemma_tokenizer,
        template=text.GEMMA_TEMPLATE,
        mix=AT_ONCE,
        examples=288_000,
        batch_size=32,
    ),
    Recipe(
        name="mini-qwen3-small",
        build=lambda: qwen(hidden=128, layers=3, heads=4),
        tokenizer=text.train_qwen_tokenizer,
        template=text.QWEN_TEMPLATE,
        mix=AT_ONCE,
        examples=160_000,
        batch_size=32,
    ),
)
