"""A rebuild that works, and the models that are shipped."""

import json
import shutil
from dataclasses import replace
from functools import partial

import pytest
import tiny
import torch

from helpers.models import load_student, load_teacher
from helpers.problems import PROBLEMS
from helpers.profiles import MODELS, PROFILES
from helpers.rebuild import minilab
from helpers.rebuild.recipes import RECIPES, qwen

SHOWCASE = PROBLEMS / "showcase.jsonl"
TINY = {
    "mini-qwen3": partial(qwen, hidden=64, layers=2, heads=2),
    "mini-gemma3": tiny.tiny_gemma,
}
BY_NAME = {recipe.name: recipe for recipe in RECIPES}
FILES = {"config.json", "generation_config.json", "model.safetensors"}
FILES |= {"chat_template.jinja", "tokenizer.json", "tokenizer_config.json"}


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """Build into a temporary folder; nothing of the course is touched."""
    monkeypatch.setattr(torch, "compile", lambda body, **_: body)
    monkeypatch.setattr(minilab, "WORK", tmp_path)
    for name in ("MODELS", "PROBLEMS", "DATA"):
        monkeypatch.setattr(minilab, name, tmp_path / name.lower())
    return tmp_path


@pytest.mark.parametrize("name", TINY)
def test_minilab_builds_a_folder_that_loads(elsewhere, monkeypatch, name):
    """From the command to the card, on a few tokens and eight problems."""
    small = {"build": TINY[name], "tokens": 9000, "opening": ()}
    recipes = [replace(BY_NAME[name], **small)]
    monkeypatch.setattr(minilab, "RECIPES", recipes)
    monkeypatch.setattr(minilab, "SIZES", dict.fromkeys(minilab.SIZES, 8))
    (elsewhere / "data" / "problems").mkdir(parents=True)
    shutil.copy(SHOWCASE, elsewhere / "data" / "problems")
    assert minilab.main(["--ship"]) == 0
    folder = elsewhere / "data" / "models" / name
    assert {path.name for path in folder.iterdir()} == FILES | {"README.md"}
    card = (folder / "README.md").read_text("utf-8")
    assert ("nats a thought" in card) == (name == "mini-qwen3")
    assert "unseen" in card and "0/4" in card
    loaded = load_teacher(PROFILES["mini"], str(folder))
    written = loaded.model.generation_config
    assert written.do_sample == (name == "mini-qwen3")
    ends = {"mini-qwen3": ["<|im_end|>"]}.get(name, ["<eos>", "<end_of_turn>"])
    stops = loaded.tokenizer.convert_tokens_to_ids(ends)
    assert written.eos_token_id == stops
    if name == "mini-gemma3":
        load_student(PROFILES["mini"], str(folder))


@pytest.mark.parametrize("name", TINY)
def test_save_tokenizer_gives_the_shipped_one(elsewhere, name):
    minilab.save_tokenizer(BY_NAME[name], 7)
    for file in ("tokenizer.json", "chat_template.jinja"):
        new = (elsewhere / "models" / name / file).read_text("utf-8")
        assert new == (MODELS / name / file).read_text("utf-8"), file


@pytest.mark.parametrize("name", BY_NAME)
def test_shipped_model_folder_is_ordinary_safe_and_small(name):
    files = {path.name: path for path in (MODELS / name).iterdir()}
    assert files.keys() == FILES | {"README.md"}
    config = json.loads(files["config.json"].read_text("utf-8"))
    assert "auto_map" not in config
    assert sum(path.stat().st_size for path in files.values()) < 10e6
    model = load_teacher(PROFILES["mini"], str(MODELS / name)).model
    kind = "Gemma3ForCausalLM" if "gemma" in name else "Qwen3ForCausalLM"
    assert type(model).__name__ == kind
    assert all(torch.isfinite(p).all() for p in model.parameters())
    assert "95% CI" in files["README.md"].read_text("utf-8")
