"""A rebuild that works, and the models that are shipped."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from pathlib import Path

import pytest
import tiny
import torch

from helpers import chat
from helpers.answers import is_correct, split_trace
from helpers.models import load_student, load_teacher
from helpers.problems import load_problems, showcase
from helpers.profiles import MODELS, PROFILES
from helpers.rebuild import minilab, text
from helpers.rebuild import models as minilab_models

RECIPES = {recipe.name: recipe for recipe in minilab.RECIPES}
NAMES = ["mini-qwen3", "mini-gemma3", "mini-qwen3-small"]


class Killed(Exception):
    """Stands for a kill: nothing after it runs."""


@pytest.fixture
def elsewhere(tmp_path, monkeypatch) -> Path:
    """Build into a temporary folder; the problems stay the shipped ones."""
    monkeypatch.setattr(minilab, "MODELS", tmp_path / "models")
    monkeypatch.setattr(minilab, "WORK", tmp_path / "work")
    return tmp_path


def small(name: str) -> minilab.Recipe:
    """A recipe whose model is tiny."""
    if name == "mini-gemma3":
        return replace(RECIPES[name], build=tiny.tiny_gemma)
    return replace(
        RECIPES[name],
        build=lambda: minilab_models.qwen(hidden=64, layers=2, heads=2),
    )


def shipped(name: str) -> Path:
    if not (MODELS / name / "README.md").exists():
        pytest.skip(f"data/models/{name} is still being trained")
    return MODELS / name


@pytest.mark.parametrize("name", ["mini-qwen3", "mini-gemma3"])
def test_train_gives_a_folder_that_loads(elsewhere, name):
    folder = minilab.train(small(name), seed=7, examples=128)
    assert folder == elsewhere / "models" / name
    files = {path.name for path in folder.iterdir()}
    assert files == {
        "chat_template.jinja",
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    }
    loaded = load_teacher(PROFILES["mini"], str(folder))
    stops = loaded.model.generation_config.eos_token_id
    ends = {"mini-qwen3": ["<|im_end|>"]}.get(name, ["<eos>", "<end_of_turn>"])
    assert stops == loaded.tokenizer.convert_tokens_to_ids(ends)
    sampled = loaded.model.generation_config.do_sample
    assert sampled == (name == "mini-qwen3")
    assert not (elsewhere / "work" / name).exists()
    if name == "mini-gemma3":
        load_student(PROFILES["mini"], str(folder))


@pytest.mark.slow
def test_train_continues_after_a_kill(elsewhere, monkeypatch):
    """Killed at step 3 of 4, it starts from the checkpoint of step 2."""
    whole = minilab.train(small("mini-gemma3"), seed=7, examples=128)
    weights = (whole / "model.safetensors").read_bytes()
    arguments = minilab.TrainingArguments

    def every_second_step(**options):
        return arguments(**{**options, "save_steps": 2})

    monkeypatch.setattr(minilab, "TrainingArguments", every_second_step)
    plain = minilab.Trainer
    started = []

    class Stopping(plain):
        stop: int | None = 3

        def training_step(self, *arguments, **options):
            started.append(self.state.global_step)
            if self.state.global_step == self.stop:
                raise Killed
            return super().training_step(*arguments, **options)

    monkeypatch.setattr(minilab, "Trainer", Stopping)
    with pytest.raises(Killed):
        minilab.train(small("mini-gemma3"), seed=7, examples=128)
    assert started == [0, 1, 2, 3]
    Stopping.stop = None
    again = minilab.train(small("mini-gemma3"), seed=7, examples=128)
    assert started[4:] == [2, 3]
    assert (again / "model.safetensors").read_bytes() == weights


@pytest.mark.parametrize("name", ["mini-qwen3", "mini-gemma3"])
def test_save_tokenizer_gives_the_shipped_one(elsewhere, name):
    minilab.save_tokenizer(RECIPES[name], 7)
    made = elsewhere / "models" / name
    for file in ("tokenizer.json", "chat_template.jinja"):
        new = (made / file).read_text("utf-8")
        assert new == (MODELS / name / file).read_text("utf-8"), file


@pytest.mark.parametrize("name", NAMES)
def test_encode_form_trains_everything_but_the_question(name):
    recipe = RECIPES[name]
    tokenizer = tiny.tokenizer(
        "mini-gemma3" if "gemma" in name else "mini-qwen3"
    )
    problem = tiny.worked(1)[0]
    for form in recipe.mix:
        row = minilab.encode_form(form, problem, tokenizer, random.Random(1))
        trained = [label for label in row["labels"] if label != -100]
        assert trained == row["input_ids"][-len(trained) :]
        hidden = tokenizer.decode(row["input_ids"][: -len(trained)])
        asks = form not in ("sums", "pages")
        assert (problem.question in hidden) == asks
        end = tokenizer.decode(trained[-1:])
        chats = form in ("at_once", "thinking")
        turn = chat.end_of_turn(tokenizer)
        assert end == (turn if chats else tokenizer.eos_token)


def test_pages_shows_a_gemma_no_think_tag():
    rng = random.Random(2)
    tokenizer = tiny.tokenizer("mini-gemma3")
    problem = tiny.worked(1)[0]
    for _ in range(200):
        row = minilab.encode_form("pages", problem, tokenizer, rng)
        shown = tokenizer.decode(row["input_ids"])
        assert "<think>" not in shown and "</think>" not in shown


def test_encode_form_prose_never_speaks_in_the_chat_format():
    tokenizer = tiny.tokenizer("mini-gemma3")
    turns = tokenizer.convert_tokens_to_ids(
        ["<start_of_turn>", "<end_of_turn>"]
    )
    for problem in tiny.worked(20):
        row = minilab.encode_form(
            "prose", problem, tokenizer, random.Random(1)
        )
        assert not set(turns) & set(row["input_ids"])
        assert "<think" not in tokenizer.decode(row["input_ids"])


def test_thinking_answer_is_closed_correct_and_fits():
    rng = random.Random(4)
    lengths = []
    for problem in tiny.worked(200):
        answer = text.thinking_answer(problem, rng)
        assert split_trace(answer).closed
        assert is_correct(answer, problem.gold)
        for step in problem.steps:
            assert step.equation in answer
        ids = chat.encode_text(answer, tiny.tokenizer("mini-qwen3"))
        lengths.append(len(ids) + 1)
    assert max(lengths) < PROFILES["mini"].max_new_tokens


def test_final_sentence_is_read_back():
    for problem in tiny.worked(50):
        assert is_correct(text.final_sentence(problem), problem.gold)


def test_arithmetic_sums_are_right():
    rng = random.Random(4)
    for _ in range(50):
        for line in text.arithmetic(rng).rstrip(".").split(". "):
            left, result = line.split(" = ")
            a, symbol, b = left.split()
            assert text.SYMBOLS[symbol](int(a), int(b)) == int(result)
            assert int(result) >= 0


def test_stream_never_shows_a_question_that_is_scored():
    scored = set()
    for split in ("validation", "test", "held_out"):
        scored |= {p["question"] for p in load_problems("mini", split)}
    scored |= {p["question"] for p in showcase()}
    recipe = replace(RECIPES["mini-gemma3"], mix={"at_once": 1.0})
    tokenizer = tiny.tokenizer("mini-gemma3")
    rows = minilab.stream(recipe, tokenizer, seed=7, count=1500)
    for row in rows:
        shown = tokenizer.decode(row["input_ids"])
        question = shown.split("Question: ")[1].split("<end_of_turn>")[0]
        assert question not in scored


def test_recipes_students_never_see_a_thought():
    for name in ("mini-gemma3", "mini-qwen3-small"):
        assert "thinking" not in RECIPES[name].mix
    for recipe in minilab.RECIPES:
        assert sum(recipe.mix.values()) == pytest.approx(1)


# --- what is shipped ---------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_shipped_model_folder_is_ordinary_and_safe(name):
    folder = shipped(name)
    files = {path.name for path in folder.iterdir()}
    assert files == {
        "README.md",
        "chat_template.jinja",
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    }
    config = json.loads((folder / "config.json").read_text("utf-8"))
    kind = "Gemma3ForCausalLM" if "gemma" in name else "Qwen3ForCausalLM"
    assert config["architectures"] == [kind]
    assert "auto_map" not in config
    model = load_teacher(PROFILES["mini"], str(folder)).model
    for parameter in model.parameters():
        assert torch.isfinite(parameter).all()


def test_shipped_models_are_small_together():
    total = sum(
        file.stat().st_size
        for name in NAMES
        for file in shipped(name).iterdir()
    )
    assert total < 40e6


@pytest.mark.parametrize("name", NAMES)
def test_shipped_model_card_says_how_and_how_good(name):
    card = (shipped(name) / "README.md").read_text("utf-8")
    assert "helpers minilab" in card
    assert "%" in card and "95% CI" in card


def test_shipped_pair_has_different_tokenizers_and_one_shares():
    teacher = chat.encode_text("12 pens", tiny.tokenizer("mini-qwen3"))
    student = chat.encode_text("12 pens", tiny.tokenizer("mini-gemma3"))
    assert teacher != student
    shipped("mini-qwen3-small")
    sibling = tiny.tokenizer("mini-qwen3-small")
    assert sibling.get_vocab() == tiny.tokenizer("mini-qwen3").get_vocab()
    prompt = chat.render(chat.student_messages("1?"), sibling, generate=True)
    assert prompt.endswith("assistant\n")
