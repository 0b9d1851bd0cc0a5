"""helpers.profiles: three sizes, and overrides that are allowed."""

import random
from dataclasses import FrozenInstanceError, asdict, fields, replace

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
    get_profile,
    overrides,
    set_seed,
)
from helpers.scale.planner import LOGIT_BYTES, weight_bytes
from helpers.scale.shapes import load_shape

FULL = PROFILES["full"]


def typed(**settings: str):
    """The profile in force where these variables are set."""
    return get_profile(
        environment={f"DISTILL_{k}": v for k, v in settings.items()}
    )


def test_profiles_are_local_or_pinned():
    assert tuple(PROFILES) == PROFILE_NAMES
    assert typed() == PROFILES["mini"]
    assert FULL.teacher == "Qwen/Qwen3-4B-Thinking-2507"
    assert FULL.student == "unsloth/gemma-3-1b-it"
    for profile in PROFILES.values():
        assert "1?" in profile.teacher_prompt.format(question="1?")
        for model in (profile.teacher, profile.student, profile.kd_student):
            mini = str(DATA / "models") in model
            assert mini or len(HUB[model].revision) == 40
    with pytest.raises(CourseError, match="'huge'.*mini, laptop, full"):
        typed(PROFILE="huge")


def test_get_profile_reads_the_environment():
    told = {"STUDENT": "/models/my-gemma", "TRACES": "50", "EPOCHS": ""}
    told |= {"LEARNING_RATE": "1e-4", "LOAD_IN_4BIT": "0"}
    told |= {"TEACHER_IN_4BIT": "TRUE"}
    told |= {"RESULTS_DIR": "elsewhere"}  # no field, and not like one
    meant = {"student": "/models/my-gemma", "traces": 50}
    meant |= {"learning_rate": 1e-4, "load_in_4bit": False}
    meant |= {"teacher_in_4bit": True}
    laptop = PROFILES["laptop"]
    assert typed(PROFILE="laptop", **told) == replace(laptop, **meant)
    assert get_profile("full", {"DISTILL_PROFILE": "mini"}) == FULL


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("TEMPERATURE", ".*DISTILL_SAMPLING_TEMPERATURE "),
        ("EPOCH", ".*DISTILL_EPOCHS "),
        ("BATCHSIZE", ".*DISTILL_BATCH_SIZE "),
        ("LR", "is not"),
        ("RESULT_DIR", "is not"),
    ],
)
def test_get_profile_refuses_a_name_that_is_nearly_one(written, meant):
    with pytest.raises(CourseError, match=f"DISTILL_{written} {meant}"):
        typed(**{written: "1"})
    assert typed(RESULTS_DIR="x", API_KEY="y") == typed()


@pytest.mark.parametrize("field", [f.name for f in fields(FULL)][1:])
def test_every_field_can_be_overridden_and_has_a_range(field):
    old = getattr(PROFILES["mini"], field)
    texts = {"analysis_length": "2", "dtype": "float16"}
    texts["teacher_prompt"] = "{question} {{1}}"
    text = texts.get(field, "1")
    new = getattr(typed(**{field.upper(): text}), field)
    assert type(new) is type(old) and new == type(old)(text)
    if field not in ("dtype", "teacher_prompt") and isinstance(old, str):
        return
    for bad in ("a word", "nan", "inf", "-1", "9999999999", "{question} {"):
        match = f"^DISTILL_{field.upper()}=.*unset it"
        with pytest.raises(CourseError, match=match):
            typed(**{field.upper(): bad})


def test_sampling_is_frozen_and_its_own_record():
    sampling = PROFILES["mini"].sampling(seed=3)
    shipped = {"temperature": 0.6, "top_p": 0.95, "top_k": 20, "seed": 3}
    assert asdict(sampling) == shipped | {"max_new_tokens": 192}
    assert Sampling(**asdict(sampling)) == sampling
    with pytest.raises(FrozenInstanceError):
        sampling.seed = 4
    with pytest.raises(CourseError, match="^top_p="):
        Sampling(top_p=7)
    options = sampling.options()
    assert options.pop("do_sample") and "seed" not in options
    greedy = PROFILES["mini"].greedy.options()
    assert not greedy["do_sample"] and greedy["temperature"] is None


def test_overrides_come_back_as_typed():
    assert overrides(typed(SEED="9")) == ""
    changed = typed(PROFILE="laptop", LOAD_IN_4BIT="0", TRACES="50")
    words = dict(word.split("=") for word in overrides(changed).split())
    assert get_profile("laptop", words) == changed
    assert overrides(typed(STUDENT="/srv/ada/x")) == "DISTILL_STUDENT=x"


def test_profile_is_frozen_and_checked_when_replaced():
    with pytest.raises(FrozenInstanceError):
        FULL.epochs = 9
    with pytest.raises(CourseError, match="DISTILL_EPOCHS=0"):
        replace(FULL, epochs=0)
    assert replace(FULL, evaluation_batch=8).teacher_batch == 8
    assert FULL.teacher_batch == FULL.teacher_evaluation_batch


def test_traces_path_is_the_shipped_file_for_mini_as_it_is():
    shipped = DATA / "traces" / "teacher.jsonl"
    assert typed(STUDENT="x", SEED="8").traces_path == shipped
    changed = typed(SAMPLING_TEMPERATURE="1")
    assert changed.traces_path == RUNS / "mini" / "traces" / "teacher.jsonl"
    assert FULL.traces_path == RUNS / "full" / "traces" / "teacher.jsonl"


def test_full_fits_24_gb_where_notebooks_look_at_logits():
    """Notebook 01 trains all weights, 05 sorts all logits; CUDA takes 1 GB."""
    teacher, small, gemma = map(
        load_shape, (FULL.kd_teacher, FULL.kd_student, FULL.student)
    )
    every = weight_bytes(teacher, 4) + weight_bytes(small, 16)
    every += weight_bytes(gemma, 16)

    def peak(rows: int, tokens: int, loop_rows: int) -> float:
        text = 3 * weight_bytes(gemma, 16) + rows * tokens * (
            gemma.layers * gemma.kept_per_token(0)
            + LOGIT_BYTES * gemma.vocabulary
        )
        adapters = 18 * gemma.adapters(FULL.rank) + weight_bytes(gemma, 4)
        ranked = adapters + loop_rows * tokens * (
            gemma.layers * gemma.kept_per_token(FULL.rank)
            + (LOGIT_BYTES + 36) * gemma.vocabulary
        )
        return every + max(text, ranked)

    length = FULL.analysis_length
    assert peak(FULL.theory_batch, length, FULL.kd_batch_size) < 23e9
    assert peak(8, 3000, 16) > 23e9  # as in mini, but with GSM8K's lengths


def test_set_seed_seeds_all_three(monkeypatch):
    def draw(seed):
        assert set_seed(seed) == (seed or 11)
        return random.random(), numpy.random.rand(), torch.rand(1).item()

    first = draw(5)
    assert draw(5) == first
    assert not set(draw(6)) & set(first)
    monkeypatch.setenv("DISTILL_SEED", "11")
    draw(None)
    with pytest.raises(CourseError, match="seed=-1"):
        set_seed(-1)
