"""Counting a model from its config, against transformers itself."""

from __future__ import annotations

import json

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from helpers import CourseError
from helpers.profiles import MODELS
from helpers.scale.shapes import (
    CONFIGS,
    known_models,
    load_shape,
    read_shape,
)


def config_of(name: str) -> dict:
    return json.loads((CONFIGS / f"{name}.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", known_models())
def test_shape_counts_as_transformers_builds(name):
    config = AutoConfig.for_model(**config_of(name))
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
    assert shape.sliding == sum(kind == "sliding_attention" for kind in kinds)


@pytest.mark.parametrize(
    ("name", "stored"),
    [  # bytes of bfloat16 weights as the hub lists them, tied heads counted
        ("Qwen3-4B-Thinking-2507", 8_044_936_192),
        ("Qwen3-8B", 16_381_470_720),
        ("Qwen3-14B", 29_536_614_400),
        ("Qwen3-32B", 65_524_246_528),
    ],
)
def test_shape_parameters_are_those_of_the_hub(name, stored):
    assert 2 * load_shape(name).parameters == stored


def test_known_models_are_a_dozen_and_sorted():
    names = known_models()
    assert len(names) >= 12
    sizes = [load_shape(name).parameters for name in names]
    assert sizes == sorted(sizes)


@pytest.mark.parametrize("name", ["mini-gemma3", "mini-qwen3"])
def test_load_shape_reads_a_model_folder(name):
    shape = load_shape(str(MODELS / name))
    model = AutoModelForCausalLM.from_pretrained(MODELS / name)
    assert shape.parameters == sum(p.numel() for p in model.parameters())


def test_load_shape_takes_a_hub_id():
    assert load_shape("Qwen/Qwen3-0.6B") == load_shape("Qwen3-0.6B")
    assert load_shape("unsloth/gemma-3-1b-it").sliding == 22


def test_load_shape_unknown_lists_the_known():
    with pytest.raises(CourseError, match="no config for .*Qwen3-0.6B"):
        load_shape("nobody/nothing")


@pytest.mark.parametrize(
    ("content", "message"),
    [("{", "cannot be read"), ("[]", "cannot be read"), ("{}", "None")],
)
def test_load_shape_broken_config_is_a_sentence(tmp_path, content, message):
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(CourseError, match=message):
        load_shape(str(tmp_path))


def test_read_shape_refuses_what_was_not_counted():
    with pytest.raises(CourseError, match="'qwen3_moe' has not been counted"):
        read_shape({"model_type": "qwen3_moe"})
    config = config_of("Qwen3-0.6B")
    del config["hidden_size"]
    with pytest.raises(CourseError, match="no 'hidden_size'"):
        read_shape(config)


def test_read_shape_finds_the_text_part():
    nested = {
        "model_type": "gemma3",
        "text_config": config_of("gemma-3-4b-it"),
    }
    assert read_shape(nested) == load_shape("gemma-3-4b-it")


def test_adapters_are_rank_times_in_plus_out():
    shape = load_shape("gemma-3-270m-it")
    a_layer = sum(rows + columns for rows, columns in shape.projections)
    assert shape.adapters(8) == 18 * 8 * a_layer
    assert shape.adapters(16) == 2 * shape.adapters(8)


def test_cache_bytes_sliding_layers_stop_growing():
    qwen, gemma = load_shape("Qwen3-0.6B"), load_shape("gemma-3-1b-it")
    assert qwen.cache_bytes(1) == 28 * 2 * 2 * 8 * 128
    assert qwen.cache_bytes(100) == 100 * qwen.cache_bytes(1)
    assert gemma.cache_bytes(512) == 512 * gemma.cache_bytes(1)
    more = gemma.cache_bytes(513) - gemma.cache_bytes(512)
    assert more == 4 * 2 * 2 * 256  # four layers of 26 see everything
