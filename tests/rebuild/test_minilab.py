"""A rebuild that works, and the models that are shipped."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import tiny
import torch

from helpers.models import load_student, load_teacher
from helpers.problems import load_problems, showcase
from helpers.profiles import MODELS, PROFILES
from helpers.rebuild import minilab
from helpers.rebuild.models import RECIPES, qwen

BY_NAME = {recipe.name: recipe for recipe in RECIPES}
FILES = {
    "chat_template.jinja",
    "config.json",
    "generation_config.json",
    "model.safetensors",
    "tokenizer.json",
    "tokenizer_config.json",
}


class Killed(Exception):
    """Stands for a kill: nothing after it runs."""


@pytest.fixture
def elsewhere(tmp_path, monkeypatch) -> Path:
    """Build into a temporary folder; the problems stay the shipped ones."""
    monkeypatch.setattr(minilab, "MODELS", tmp_path / "models")
    monkeypatch.setattr(minilab, "WORK", tmp_path / "work")
    return tmp_path


def train(name: str) -> Path:
    """A tiny model of that recipe, on 128 examples."""
    build = tiny.tiny_gemma
    if name == "mini-qwen3":
        build = partial(qwen, hidden=64, layers=2, heads=2)
    return minilab.train(
        replace(BY_NAME[name], build=build), seed=7, examples=128
    )


@pytest.mark.parametrize("name", ["mini-qwen3", "mini-gemma3"])
def test_train_gives_a_folder_that_loads(elsewhere, name):
    folder = train(name)
    assert folder == elsewhere / "models" / name
    assert {path.name for path in folder.iterdir()} == FILES
    loaded = load_teacher(PROFILES["mini"], str(folder))
    written = loaded.model.generation_config
    assert written.do_sample == (name == "mini-qwen3")
    ends = {"mini-qwen3": ["<|im_end|>"]}.get(name, ["<eos>", "<end_of_turn>"])
    stops = loaded.tokenizer.convert_tokens_to_ids(ends)
    assert written.eos_token_id == stops
    assert not (elsewhere / "work" / name).exists()
    if name == "mini-gemma3":
        load_student(PROFILES["mini"], str(folder))


@pytest.mark.slow
def test_train_continues_after_a_kill(elsewhere, monkeypatch):
    """Killed at step 3 of 4, it starts from the checkpoint of step 2."""
    whole = train("mini-gemma3")
    weights = (whole / "model.safetensors").read_bytes()
    arguments, plain = minilab.TrainingArguments, minilab.Trainer
    started = []

    def every_second_step(**options):
        return arguments(**{**options, "save_steps": 2})

    class Stopping(plain):
        stop: int | None = 3

        def training_step(self, *arguments, **options):
            started.append(self.state.global_step)
            if self.state.global_step == self.stop:
                raise Killed
            return super().training_step(*arguments, **options)

    monkeypatch.setattr(minilab, "TrainingArguments", every_second_step)
    monkeypatch.setattr(minilab, "Trainer", Stopping)
    with pytest.raises(Killed):
        train("mini-gemma3")
    assert started == [0, 1, 2, 3]
    Stopping.stop = None
    again = train("mini-gemma3")
    assert started[4:] == [2, 3]
    assert (again / "model.safetensors").read_bytes() == weights


@pytest.mark.parametrize("name", ["mini-qwen3", "mini-gemma3"])
def test_save_tokenizer_gives_the_shipped_one(elsewhere, name):
    minilab.save_tokenizer(BY_NAME[name], 7)
    for file in ("tokenizer.json", "chat_template.jinja"):
        new = (elsewhere / "models" / name / file).read_text("utf-8")
        assert new == (MODELS / name / file).read_text("utf-8"), file


def test_stream_never_shows_a_question_that_is_scored():
    scored = {p["question"] for p in showcase()}
    for split in ("validation", "test", "held_out"):
        scored |= {p["question"] for p in load_problems("mini", split)}
    recipe = replace(BY_NAME["mini-gemma3"], mix={"at_once": 1.0})
    tokenizer = tiny.tokenizer("mini-gemma3")
    for row in minilab.stream(recipe, tokenizer, seed=7, count=1500):
        shown = tokenizer.decode(row["input_ids"])
        question = shown.split("Question: ")[1].split("<end_of_turn>")[0]
        assert question not in scored


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
