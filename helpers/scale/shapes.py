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
from helpers.cli.environment import REPOSITORY
from helpers.profiles import revision_of

CONFIGS = REPOSITORY / "data" / "configs"
NORMED_HEADS = ("qwen3", "gemma3_text")  # norms on queries and keys
BIASED = ("qwen2",)
FAMILIES = ("llama", *NORMED_HEADS, *BIASED)


PlanError = CourseError  # the name that older callers catch


@dataclass(frozen=True)
class Shape:
    """The numbers of a config that decide memory; heads are per layer.

    window: tokens that a sliding layer looks back, 0 without such layers.
    sliding: how many layers slide.
    """

    family: str
    vocabulary: int
    width: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    feed_forward: int
    tied: bool
    window: int = 0
    sliding: int = 0

    @property
    def linear(self) -> int:
        """Weights in the seven projections: 4-bit, and under adapters."""
        return self.layers * sum(a * b for a, b in self.projections)

    @property
    def projections(self) -> list[tuple[int, int]]:
        """(out, in) of the seven projections of a layer."""
        q, kv = self.heads * self.head_dim, self.kv_heads * self.head_dim
        d, f = self.width, self.feed_forward
        return [(q, d), (kv, d), (kv, d), (d, q), (f, d), (f, d), (d, f)]

    @property
    def embedding(self) -> int:
        """Weights of the embedding, and of the head where it is not tied."""
        return self.vocabulary * self.width * (1 if self.tied else 2)

    @property
    def norms(self) -> int:
        """Norms and biases: few, never quantized."""
        gemma = self.family == "gemma3_text"
        a_layer = self.width * (4 if gemma else 2)
        if self.family in NORMED_HEADS:
            a_layer += 2 * self.head_dim
        if self.family in BIASED:
            a_layer += (self.heads + 2 * self.kv_heads) * self.head_dim
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
        gemma = self.family == "gemma3_text"
        normed = self.family in NORMED_HEADS
        q, kv = self.heads * self.head_dim, self.kv_heads * self.head_dim
        width = (26 if gemma else 18) * self.width
        heads = (10 if normed else 6) * q + (8 if normed else 4) * kv
        return width + heads + 8 * self.feed_forward + 14 * rank

    def cache_bytes(self, tokens: int) -> int:
        """Bytes of keys and values in bfloat16 for one row of `tokens`."""
        kept = self.sliding * min(tokens, self.window or tokens)
        kept += (self.layers - self.sliding) * tokens
        return 2 * 2 * self.kv_heads * self.head_dim * kept


def read_shape(config: Mapping[str, Any]) -> Shape:
    """The shape in the text of a config.json.

    Raises CourseError for an architecture that was not counted here, and for
    one that lacks a number.
    """
    config = config.get("text_config") or config  # Gemma 3 from 4B up
    family = str(config.get("model_type"))
    if family not in FAMILIES:
        raise CourseError(
            f"model_type {family!r} has not been counted here. Known are "
            f"{', '.join(FAMILIES)}; mixtures of experts are not among them."
        )
    try:
        layers, heads = (
            config["num_hidden_layers"],
            config["num_attention_heads"],
        )
        kinds = config.get("layer_types") or []
        every = config.get("_sliding_window_pattern") or config.get(
            "sliding_window_pattern"
        )
        sliding = sum(kind == "sliding_attention" for kind in kinds)
        if not kinds and every and config.get("sliding_window"):
            sliding = layers - layers // every
        return Shape(
            family=family,
            vocabulary=config["vocab_size"],
            width=config["hidden_size"],
            layers=layers,
            heads=heads,
            kv_heads=config.get("num_key_value_heads") or heads,
            head_dim=config.get("head_dim") or config["hidden_size"] // heads,
            feed_forward=config["intermediate_size"],
            tied=config.get("tie_word_embeddings", family == "gemma3_text"),
            window=(config.get("sliding_window") or 0) if sliding else 0,
            sliding=sliding,
        )
    except KeyError as error:
        raise CourseError(
            f"the config has no {error.args[0]!r}. Give the config.json of "
            "a Hugging Face model folder."
        ) from error


def known_models() -> list[str]:
    """Names of the configs that ship with the course, small ones first."""
    names = [path.stem for path in CONFIGS.glob("*.json")]
    return sorted(names, key=lambda name: load_shape(name).parameters)


def load_shape(name: str) -> Shape:
    """A shipped name or hub id, or a folder with a config.json.

    Any other hub id is looked up on the hub: its config alone, some
    kilobytes. Raises CourseError when there is none to be had.
    """
    folder, shipped = Path(name), CONFIGS / f"{Path(name).name}.json"
    local = folder.is_absolute() or name.startswith(".")
    if local and not (folder / "config.json").is_file():
        raise CourseError(
            f"{folder.name}: no config.json in that folder. Name a Hugging "
            "Face model folder, or a hub id."
        )
    if (folder / "config.json").is_file():
        path = folder / "config.json"
    elif shipped.is_file():
        path = shipped
    else:
        path = from_hub(name)
    try:
        return read_shape(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, AttributeError) as error:
        if isinstance(error, CourseError):
            raise
        raise CourseError(
            f"{path.name} of {folder.name} cannot be read: {error}. Give a "
            "folder with a config.json, or a hub id."
        ) from error


def from_hub(name: str) -> Path:
    """Fetch the config.json of a hub model; CourseError where it fails."""
    try:
        from huggingface_hub import hf_hub_download

        return Path(
            hf_hub_download(name, "config.json", revision=revision_of(name))
        )
    except Exception as error:  # the hub raises many kinds
        raise CourseError(
            f"no config for {name!r} ({type(error).__name__}). Give a folder "
            f"with a config.json, or one of: {', '.join(known_models())}."
        ) from error
