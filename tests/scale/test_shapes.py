"""Counting a model from its config, against transformers itself."""

import json

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from helpers import CourseError
from helpers.scale.shapes import CONFIGS, known_models, load_shape


@pytest.mark.parametrize("name", known_models())
def test_shape_counts_as_transformers_builds(name):
    content = json.loads((CONFIGS / f"{name}.json").read_text("utf-8"))
    config = AutoConfig.for_model(**content)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    shape = load_shape(name)
    assert shape.parameters == sum(p.numel() for p in model.parameters())
    linear = [
        module.weight.numel()
        for name, module in model.named_modules()
        if name.endswith("_proj")
    ]
    assert shape.linear == sum(linear) and len(linear) == 7 * shape.layers
    kinds = getattr(config, "layer_types", None) or []
    assert shape.sliding == kinds.count("sliding_attention")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "cannot be read"),
        ('{"model_type": "qwen3_moe"}', "'qwen3_moe' has not been counted"),
        ('{"model_type": "qwen3"}', "hidden_size"),
    ],
)
def test_load_shape_broken_config_is_a_sentence(tmp_path, content, message):
    with pytest.raises(CourseError, match="config.json.*cannot be read"):
        load_shape(str(tmp_path))
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(CourseError, match=message):
        load_shape(str(tmp_path))


def test_adapters_and_cache_by_hand():
    qwen, gemma = load_shape("Qwen3-0.6B"), load_shape("gemma-3-1b-it")
    q, kv, d, f = 16 * 128, 8 * 128, 1024, 3072  # LoRA: rank times in and out
    pairs = 2 * (q + d) + 2 * (kv + d) + 3 * (f + d)
    assert qwen.adapters(16) == 28 * 16 * pairs
    assert qwen.cache_bytes(100) == 100 * 28 * 2 * 2 * 8 * 128
    more = gemma.cache_bytes(513) - gemma.cache_bytes(512)
    assert more == 4 * 2 * 2 * 256  # four layers of 26 see everything
