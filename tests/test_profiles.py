"""helpers.profiles: three sizes, and overrides of the right type."""

from __future__ import annotations

import random
from dataclasses import FrozenInstanceError, fields

import numpy
import pytest
import torch

from helpers import PROFILE_NAMES
from helpers.profiles import (
    DATA,
    PROFILES,
    RUNS,
    get_profile,
    overrides,
    set_seed,
)


def test_get_profile_default_is_mini_and_local():
    profile = get_profile(environment={})
    assert profile.name == "mini"
    for model in (profile.teacher, profile.student, profile.kd_student):
        assert str(DATA / "models") in model


def test_profiles_are_those_that_the_commands_offer():
    assert tuple(PROFILES) == PROFILE_NAMES
    for name, profile in PROFILES.items():
        assert profile.name == name
        assert "{question}" in profile.teacher_prompt
        assert profile.teacher_prompt.format(question="1?").startswith(
            ("1?", "Question: 1?")
        )


def test_get_profile_full_is_the_original_pair():
    profile = get_profile("full", {})
    assert profile.teacher == "Qwen/Qwen3-4B-Thinking-2507"
    assert profile.student == "unsloth/gemma-3-1b-it"
    assert profile.epochs == 4


def test_teacher_batch_is_the_smaller_of_the_two():
    full = get_profile("full", {})
    for teacher, evaluation in ((8, 12), (12, 8)):
        sizes = {
            "DISTILL_TEACHER_EVALUATION_BATCH": str(teacher),
            "DISTILL_EVALUATION_BATCH": str(evaluation),
        }
        assert get_profile("full", sizes).teacher_batch == 8
    assert full.teacher_batch <= full.generation_batch
    assert full.teacher_batch < full.evaluation_batch


def test_get_profile_unknown_name_lists_the_known():
    with pytest.raises(ValueError, match="'huge'.*mini, laptop, full"):
        get_profile("huge", {})
    with pytest.raises(ValueError, match="unknown profile 'huge'"):
        get_profile(environment={"DISTILL_PROFILE": "huge"})


def test_get_profile_reads_the_environment():
    profile = get_profile(
        environment={
            "DISTILL_PROFILE": "laptop",
            "DISTILL_STUDENT": "/models/my-gemma",
            "DISTILL_TRACES": "50",
            "DISTILL_LEARNING_RATE": "1e-4",
            "DISTILL_LOAD_IN_4BIT": "0",
            "DISTILL_TEACHER_IN_4BIT": "TRUE",
            "DISTILL_EPOCHS": "",
        }
    )
    assert profile.name == "laptop"
    assert profile.student == "/models/my-gemma"
    assert profile.traces == 50 and type(profile.traces) is int
    assert profile.learning_rate == 1e-4
    assert profile.load_in_4bit is False
    assert profile.teacher_in_4bit is True
    assert profile.epochs == PROFILES["laptop"].epochs


def test_get_profile_an_argument_wins_over_the_environment():
    assert get_profile("full", {"DISTILL_PROFILE": "mini"}).name == "full"
    assert get_profile("mini", {"DISTILL_NAME": "other"}).name == "mini"


@pytest.mark.parametrize(
    ("field", "text", "expected"),
    [
        ("TRACES", "many", "a whole number"),
        ("TRACES", "5.5", "a whole number"),
        ("LEARNING_RATE", "fast", "a number"),
        ("LOAD_IN_4BIT", "maybe", "1 or 0"),
    ],
)
def test_get_profile_wrong_type_is_one_sentence(field, text, expected):
    with pytest.raises(ValueError) as caught:
        get_profile(environment={f"DISTILL_{field}": text})
    message = str(caught.value)
    assert f"DISTILL_{field}='{text}'" in message
    assert expected in message and "unset it" in message


def test_get_profile_every_field_can_be_overridden():
    for field in fields(PROFILES["mini"]):
        if field.name == "name":
            continue
        old = getattr(PROFILES["mini"], field.name)
        variable = f"DISTILL_{field.name.upper()}"
        text = "1" if isinstance(old, bool | int | float) else "abc"
        new = getattr(get_profile(environment={variable: text}), field.name)
        assert type(new) is type(old) and new == type(old)(text), field.name


def test_overrides_come_back_as_typed():
    assert overrides(get_profile("laptop", {"DISTILL_SEED": "9"})) == ""
    typed = {
        "DISTILL_PROBLEMS": "openai/gsm8k-again",
        "DISTILL_LOAD_IN_4BIT": "0",
        "DISTILL_TRACES": "50",
    }
    words = overrides(get_profile("laptop", typed)).split()
    again = dict(word.split("=") for word in words)
    assert get_profile("laptop", again) == get_profile("laptop", typed)
    local = get_profile("mini", {"DISTILL_STUDENT": "/home/me/gemma"})
    assert overrides(local) == "DISTILL_STUDENT=gemma"


def test_profile_is_frozen():
    with pytest.raises(FrozenInstanceError):
        get_profile("mini", {}).epochs = 9


def test_profile_paths():
    assert get_profile("mini", {}).traces_path == (
        DATA / "traces" / "teacher.jsonl"
    )
    changes = "TRACES=50", "PROBLEMS=mine.jsonl", "SAMPLING_TEMPERATURE=1"
    for change in changes:
        typed = dict([f"DISTILL_{change}".split("=")])
        path = get_profile("mini", typed).traces_path
        assert path == RUNS / "mini" / "traces" / "teacher.jsonl"
    same = get_profile("mini", {"DISTILL_STUDENT": "x", "DISTILL_SEED": "8"})
    assert same.traces_path == DATA / "traces" / "teacher.jsonl"
    full = get_profile("full", {})
    assert full.traces_path == RUNS / "full" / "traces" / "teacher.jsonl"
    assert full.run_folder == RUNS / "full"


def test_set_seed_seeds_all_three(monkeypatch):
    def draw():
        return random.random(), numpy.random.rand(), torch.rand(1).item()

    assert set_seed(5) == 5
    first = draw()
    set_seed(5)
    assert draw() == first
    assert set_seed(6) == 6
    assert all(a != b for a, b in zip(draw(), first, strict=True))
    monkeypatch.setenv("DISTILL_SEED", "11")
    assert set_seed() == 11
