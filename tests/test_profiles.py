"""helpers.profiles: three sizes, and overrides that are allowed."""

from __future__ import annotations

import random
from dataclasses import FrozenInstanceError, fields, replace

import numpy
import pytest
import torch

from helpers import PROFILE_NAMES, CourseError
from helpers.profiles import (
    DATA,
    HUB,
    PROFILES,
    RUNS,
    Sampling,
    check_range,
    get_profile,
    overrides,
    set_seed,
)
from helpers.scale.planner import (
    KD_LOGIT_BYTES,
    LOGIT_BYTES,
    load_shape,
    weight_bytes,
)

FULL = PROFILES["full"]


def test_get_profile_default_is_mini_and_local():
    profile = get_profile(environment={})
    assert profile.name == "mini"
    for model in (profile.teacher, profile.student, profile.kd_student):
        assert str(DATA / "models") in model


def test_profiles_are_those_that_the_commands_offer():
    assert tuple(PROFILES) == PROFILE_NAMES
    for name, profile in PROFILES.items():
        assert profile.name == name
        prompt = profile.teacher_prompt.format(question="1?")
        assert prompt.startswith(("1?", "Question: 1?"))


def test_get_profile_full_is_the_original_pair():
    profile = get_profile("full", {})
    assert profile.teacher == "Qwen/Qwen3-4B-Thinking-2507"
    assert profile.student == "unsloth/gemma-3-1b-it"
    assert profile.epochs == 4 and r"\boxed{}" in (
        profile.teacher_prompt.format(question="")
    )
    for model in (profile.teacher, profile.student, profile.kd_student):
        assert len(HUB[model].revision) == 40


def test_teacher_batch_is_the_smaller_of_the_two():
    for teacher, evaluation in ((8, 12), (12, 8)):
        sizes = {
            "DISTILL_TEACHER_EVALUATION_BATCH": str(teacher),
            "DISTILL_EVALUATION_BATCH": str(evaluation),
        }
        assert get_profile("full", sizes).teacher_batch == 8
    assert FULL.teacher_batch <= FULL.generation_batch < FULL.evaluation_batch


def test_get_profile_unknown_name_lists_the_known():
    with pytest.raises(CourseError, match="'huge'.*mini, laptop, full"):
        get_profile("huge", {})
    with pytest.raises(CourseError, match="unknown profile 'huge'"):
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
            "DISTILL_RESULTS_DIR": "elsewhere",  # no field, and not like one
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
        ("TRACES", "many", "a whole number from 1"),
        ("TRACES", "5.5", "a whole number"),
        ("TRACES", "-5", "a whole number from 1"),
        ("TRACES", "0", "a whole number from 1"),
        ("RANK", "-1", "from 1 to 1024"),
        ("BATCH_SIZE", "0", "from 1 to 10000"),
        ("GENERATION_BATCH", "3000000", "from 1 to 10000"),
        ("EPOCHS", "0", "from 1"),
        ("DTYPE", "banana", "float32, bfloat16, float16"),
        ("TOP_P", "7", "from 0.01 to 1"),
        ("SAMPLING_TEMPERATURE", "inf", "a number from 0 to 10"),
        ("SAMPLING_TEMPERATURE", "nan", "a number from 0 to 10"),
        ("LEARNING_RATE", "nan", "a number from 1e-08 to 1"),
        ("LEARNING_RATE", "1e5", "a number from 1e-08 to 1"),
        ("LEARNING_RATE", "fast", "a number"),
        ("SEED", "-1", "a whole number from 0"),
        ("LOAD_IN_4BIT", "maybe", "1 or 0"),
    ],
)
def test_get_profile_refuses_what_is_not_allowed(field, text, expected):
    with pytest.raises(CourseError) as caught:
        get_profile(environment={f"DISTILL_{field}": text})
    message = str(caught.value)
    assert message.startswith(f"DISTILL_{field}=")
    assert expected in message and "unset it" in message


@pytest.mark.parametrize(
    ("variable", "meant"),
    [
        ("DISTILL_TEMPERATURE", "DISTILL_SAMPLING_TEMPERATURE"),
        ("DISTILL_EPOCH", "DISTILL_EPOCHS"),
        ("DISTILL_BATCHSIZE", "DISTILL_BATCH_SIZE"),
    ],
)
def test_get_profile_refuses_a_name_that_is_nearly_one(variable, meant):
    with pytest.raises(CourseError, match=f"{variable} .*{meant} "):
        get_profile(environment={variable: "1"})


def test_check_range_names_the_option_that_was_typed():
    check_range("seed", 0)
    with pytest.raises(CourseError, match="--seed=-1: .*from 0 to 4294967295"):
        check_range("seed", -1, "--seed")
    with pytest.raises(CourseError, match="seed=-1"):
        set_seed(-1)


@pytest.mark.parametrize(
    "wrong",
    [{"temperature": float("inf")}, {"top_p": 7}, {"seed": -1}, {"top_k": -2}],
)
def test_sampling_refuses_what_is_not_allowed(wrong):
    [name] = wrong
    with pytest.raises(CourseError, match=f"^{name}="):
        Sampling(**wrong)
    with pytest.raises(CourseError, match="seed=-1"):
        PROFILES["mini"].sampling(seed=-1)


def test_get_profile_every_field_can_be_overridden():
    for field in fields(PROFILES["mini"]):
        old = getattr(PROFILES["mini"], field.name)
        text = "1" if isinstance(old, bool | int | float) else "abc"
        if field.name == "analysis_length":
            text = "2"
        if field.name == "dtype":
            text = "float16"
        if field.name != "name":
            variable = f"DISTILL_{field.name.upper()}"
            profile = get_profile(environment={variable: text})
            new = getattr(profile, field.name)
            assert type(new) is type(old) and new == type(old)(text)


def test_overrides_come_back_as_typed():
    assert overrides(get_profile("mini", {"DISTILL_SEED": "9"})) == ""
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


def test_profile_is_frozen_and_checked_when_replaced():
    with pytest.raises(FrozenInstanceError):
        get_profile("mini", {}).epochs = 9
    with pytest.raises(CourseError, match="DISTILL_EPOCHS=0"):
        replace(PROFILES["mini"], epochs=0)


def test_profile_paths():
    shipped = DATA / "traces" / "teacher.jsonl"
    assert get_profile("mini", {}).traces_path == shipped
    changes = "TRACES=50", "PROBLEMS=mine.jsonl", "SAMPLING_TEMPERATURE=1"
    for change in changes:
        typed = dict([f"DISTILL_{change}".split("=")])
        path = get_profile("mini", typed).traces_path
        assert path == RUNS / "mini" / "traces" / "teacher.jsonl"
    same = get_profile("mini", {"DISTILL_STUDENT": "x", "DISTILL_SEED": "8"})
    assert same.traces_path == shipped
    assert FULL.traces_path == RUNS / "full" / "traces" / "teacher.jsonl"
    assert FULL.run_folder == RUNS / "full"


def peaks(profile) -> dict[str, float]:
    """Bytes that notebooks 01, 05 and 06 hold where they hold most."""
    teacher, small, gemma = (
        load_shape(name)
        for name in (profile.kd_teacher, profile.kd_student, profile.student)
    )
    taught = weight_bytes(teacher, 4 if profile.teacher_in_4bit else 16)
    plain = {shape: weight_bytes(shape, 16) for shape in (small, gemma)}
    adapted = {
        shape: weight_bytes(shape, 4) + 18 * shape.adapters(profile.rank)
        for shape in (small, gemma)
    }
    trained = profile.theory_batch * profile.analysis_length
    looked = profile.analysis_batch * profile.analysis_length
    loop = profile.kd_batch_size * profile.analysis_length

    def kept(shape, rank):
        return shape.layers * shape.kept_per_token(rank)

    # 01 trains all weights: they, their gradients and Adam's two in 16 bits
    return {
        "01 text": taught
        + plain[small]
        + 4 * plain[gemma]
        + trained * (kept(gemma, 0) + LOGIT_BYTES * gemma.vocabulary),
        "01 logits": taught
        + plain[gemma]
        + 4 * plain[small]
        + trained * (kept(small, 0) + KD_LOGIT_BYTES * small.vocabulary),
        "05 yardsticks, four students": taught
        + sum(plain.values())
        + 4 * adapted[small]
        + looked * KD_LOGIT_BYTES * small.vocabulary,
        "05 ULD: sorted values, their places, gradients": taught
        + sum(plain.values())
        + adapted[gemma]
        + loop * kept(gemma, profile.rank)
        + loop * (LOGIT_BYTES + 36) * gemma.vocabulary,
        "06 gradients of four losses": taught
        + sum(plain.values())
        + adapted[small]
        + looked * kept(small, profile.rank)
        + looked * LOGIT_BYTES * small.vocabulary,
    }


def test_full_fits_24_gb_where_notebooks_look_at_logits():
    room = 23e9  # CUDA itself takes one
    expected = peaks(FULL)
    assert max(expected.values()) < room, expected
    as_in_mini = replace(
        FULL, theory_batch=8, analysis_batch=32, kd_batch_size=16
    )
    assert min(peaks(replace(as_in_mini, analysis_length=3000)).values()) > (
        room
    )


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
