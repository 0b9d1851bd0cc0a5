"""The numbers of a model's config that decide memory and time.

Standard library only. The counts of `kept_per_token` were taken from what
PyTorch keeps for the backward pass: notebook 10 repeats that for Gemma, a
test for Qwen3 too.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from helpers import CourseError
from helpers.profiles import DATA, revision_of

CONFIGS = DATA / "configs"


FAMILIES = {  # of a layer: norms as wide as it, norms on heads, biases
    "llama": (2, 0, 0),
    "qwen2": (2, 0, 1),  # biases on queries, keys and values
    "qwen3": (2, 1, 0),  # norms on queries and keys
    "gemma3_text": (4, 1, 0),
}


@dataclass(frozen=True)
class Shape:
    """The numbers of a config that decide memory; heads are per layer."""

    family: str
    vocabulary: int
    width: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    feed_forward: int
    tied: bool
    window: int = 0  # tokens that a sliding layer looks back
    sliding: int = 0  # how many layers slide

    @property
    def projections(self) -> list[tuple[int, int]]:
        """(out, in) of the seven projections of a layer."""
        q, kv = self.heads * self.head_dim, self.kv_heads * self.head_dim
        d, f = self.width, self.feed_forward
        return [(q, d), (kv, d), (kv, d), (d, q), (f, d), (f, d), (d, f)]

    @property
    def linear(self) -> int:
        """Weights in the seven projections: 4-bit, and under adapters."""
        return self.layers * sum(a * b for a, b in self.projections)

    @property
    def embedding(self) -> int:
        """Weights of the embedding, and of the head where it is not tied."""
        return self.vocabulary * self.width * (1 if self.tied else 2)

    @property
    def norms(self) -> int:
        """Norms and biases: few, never quantized."""
        norms, head_norms, biases = FAMILIES[self.family]
        biases *= self.heads + 2 * self.kv_heads
        a_layer = (
            norms * self.width + (2 * head_norms + biases) * self.head_dim
        )
        return self.layers * a_layer + self.width

    @property
    def parameters(self) -> int:
        """All parameters, a tied head counted once."""
        return self.linear + self.embedding + self.norms

    def adapters(self, rank: int) -> int:
        """Parameters of LoRA on all seven projections (arXiv:2106.09685)."""
        return self.layers * rank * sum(a + b for a, b in self.projections)

    def kept_per_token(self, rank: int) -> int:
        """Bytes a layer keeps per token for the backward pass, in bfloat16.

        Norms keep float32 copies (4 bytes), everything else bfloat16 (2).
        """
        norms, head_norms, _ = FAMILIES[self.family]
        return (
            (4 * norms + 2 * 5) * self.width
            + (4 * head_norms + 2 * 3) * self.heads * self.head_dim
            + (4 * head_norms + 2 * 2) * self.kv_heads * self.head_dim
            + 2 * 4 * self.feed_forward
            + 2 * 7 * rank
        )

    def cache_bytes(self, tokens: int) -> int:
        """Bytes of keys and values in bfloat16 for one row of `tokens`."""
        looked_at = self.sliding * min(tokens, self.window or tokens)
        looked_at += (self.layers - self.sliding) * tokens
        return 2 * 2 * self.kv_heads * self.head_dim * looked_at


def read_shape(config: Mapping[str, Any]) -> Shape:
    """The shape in a config.json.

    Raises CourseError for an architecture that was not counted, KeyError for
    a number that is missing.
    """
    config = config.get("text_config") or config  # Gemma 3 from 4B up
    family = str(config.get("model_type"))
    if family not in FAMILIES:
        raise CourseError(
            f"model_type {family!r} has not been counted here. Known are "
            f"{', '.join(FAMILIES)}; mixtures of experts are not among them."
        )
    width, layers = config["hidden_size"], config["num_hidden_layers"]
    heads, pattern = config["num_attention_heads"], "sliding_window_pattern"
    every = config.get(f"_{pattern}") or config.get(pattern)
    sliding = layers - layers // every if every else 0
    if kinds := config.get("layer_types"):
        sliding = kinds.count("sliding_attention")
    return Shape(
        family=family,
        vocabulary=config["vocab_size"],
        width=width,
        layers=layers,
        heads=heads,
        kv_heads=config.get("num_key_value_heads") or heads,
        head_dim=config.get("head_dim") or width // heads,
        feed_forward=config["intermediate_size"],
        tied=config.get("tie_word_embeddings", family == "gemma3_text"),
        window=config["sliding_window"] if sliding else 0,
        sliding=sliding,
    )


def known_models() -> list[str]:
    """Names of the configs that ship with the course, small ones first."""
    names = [path.stem for path in CONFIGS.glob("*.json")]
    return sorted(names, key=lambda name: load_shape(name).parameters)


def load_shape(name: str) -> Shape:
    """A shipped name or hub id, or a folder with a config.json.

    Any other hub id is looked up on the hub: its config alone, some
    kilobytes. Raises CourseError when there is none to be had.
    """
    path = config_path(name)
    try:
        return read_shape(json.loads(path.read_text(encoding="utf-8")))
    except CourseError:
        raise
    except (OSError, ValueError, LookupError, AttributeError) as error:
        raise CourseError(
            f"{path.name} of {Path(name).name} cannot be read ({error!r}). "
            "Give a folder with a config.json, or a hub id."
        ) from error


def config_path(name: str) -> Path:
    """Where a model's config is; from the hub, if nowhere here."""
    path, shipped = Path(name) / "config.json", f"{Path(name).name}.json"
    if path.is_file() or path.is_absolute() or name.startswith("."):
        return path
    if (CONFIGS / shipped).is_file():
        return CONFIGS / shipped
    try:
        from huggingface_hub import hf_hub_download

        revision = revision_of(name)
        return Path(hf_hub_download(name, path.name, revision=revision))
    except Exception as error:  # the hub raises many kinds
        raise CourseError(
            f"no config for {name!r} ({type(error).__name__}). Give a folder "
            f"with a config.json, or one of: {', '.join(known_models())}."
        ) from error
