"""What would not fit, and the setting that would; what is fetched."""

from __future__ import annotations

import re
import subprocess
from dataclasses import replace

import pytest

from helpers.cli import doctor
from helpers.cli import doctor as doctor_fit
from helpers.cli.doctor import fit_lines, gpu_memory_gib, hub_lines
from helpers.profiles import HUB, PROFILES, megabytes_of, revision_of

FULL = PROFILES["full"]


def test_full_profile_fits_24_gb_by_the_plan():
    """The mission: one 24 GB card instead of 48."""
    lines = list(fit_lines(FULL, 24.0))
    assert [line[0] for line in lines] == ["OK"] * 6 + ["INFO"]
    assert lines[-1][1] == "logits, at once" and "feature arms" in lines[-1][2]


def test_laptop_profile_fits_an_8_gb_card_by_the_plan():
    lines = list(fit_lines(PROFILES["laptop"], 8.0))
    assert [line[0] for line in lines][:6] == ["OK"] * 6


def test_fit_lines_name_the_setting_that_fits():
    lines = {line[1]: line for line in fit_lines(FULL, 8.0)}
    status, _, _, cure = lines["traces"]
    assert status == "FAIL" and cure.startswith("DISTILL_GENERATION_BATCH=")
    rows = int(cure.split("=")[1].split()[0])
    smaller = replace(FULL, generation_batch=rows)
    assert next(iter(fit_lines(smaller, 8.0)))[0] == "OK"
    larger = replace(FULL, generation_batch=rows + 1)
    assert next(iter(fit_lines(larger, 8.0)))[0] == "FAIL"


def test_fit_lines_without_any_batch_that_fits():
    lines = list(fit_lines(FULL, 1.0))
    assert {line[0] for line in lines[:6]} == {"FAIL"}
    assert "a larger GPU" in lines[0][3]


def test_fit_lines_without_a_gpu_say_what_it_takes():
    lines = list(fit_lines(FULL, None))
    assert {line[0] for line in lines} == {"INFO"}
    assert all("of a GPU" in line[2] for line in lines)


def test_fit_lines_unknown_model_spoils_its_own_line_only(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "mamba"}')
    odd = replace(FULL, teacher=str(tmp_path))
    lines = list(fit_lines(odd, 24.0))
    statuses = {line[1]: line[0] for line in lines[:-1]}
    odd_ones = {name for name, found in statuses.items() if found == "INFO"}
    assert odd_ones == {"traces", "evaluation, teacher"}
    assert set(statuses.values()) == {"INFO", "OK"}
    assert "'mamba' has not been counted" in lines[0][2]
    gone = replace(FULL, student="/models/gemma-3-1b-it")
    assert "no config.json" in list(fit_lines(gone, 24.0))[1][2]


def test_fit_lines_follow_the_settings():
    def gib(profile) -> list[float]:
        return [float(line[2].split()[0]) for line in fit_lines(profile, None)]

    usual = gib(FULL)
    wide = gib(replace(FULL, load_in_4bit=False, dtype="float32"))
    assert wide[0] == usual[0] and wide[1] > usual[1] + 2
    more = gib(replace(FULL, generation_batch=24))
    assert more[0] > usual[0] and more[1:] == usual[1:]
    capped = gib(replace(FULL, kd_batch_size=64))  # batch_size is 4
    assert capped[5] == gib(replace(FULL, kd_batch_size=4))[5]
    assert capped[5] > usual[5]


def test_fit_lines_ask_the_teacher_and_the_pair_in_teacher_batches():
    def found(**batches: int) -> dict[str, str]:
        lines = fit_lines(replace(FULL, **batches), None)
        return {line[1]: line[2] for line in lines}

    usual = found()
    wide = found(evaluation_batch=256)  # the student alone is asked more
    assert wide["evaluation"] != usual["evaluation"]
    for name in ("evaluation, teacher", "evaluation, pair"):
        assert wide[name] == usual[name]
        assert found(teacher_evaluation_batch=4)[name] != usual[name]
        assert found(evaluation_batch=4)[name] != usual[name]
    assert usual["evaluation, teacher"] == usual["traces"]  # of 12 rows too


@pytest.mark.parametrize("name", ["evaluation, teacher", "evaluation, pair"])
def test_fit_lines_name_the_setting_of_a_teacher_batch(name):
    large = replace(FULL, teacher_evaluation_batch=256, evaluation_batch=256)
    status, _, _, cure = {line[1]: line for line in fit_lines(large, 16.0)}[
        name
    ]
    found = re.fullmatch(r"DISTILL_TEACHER_EVALUATION_BATCH=(\d+) fits", cure)
    assert status == "FAIL" and found
    smaller = replace(large, teacher_evaluation_batch=int(found[1]))
    lines = {line[1]: line for line in fit_lines(smaller, 16.0)}
    assert lines[name][0] == "OK"


def test_fit_lines_keep_the_rows_of_a_step():
    large = replace(FULL, batch_size=64, gradient_accumulation=2)
    cure = list(fit_lines(large, 12.0))[1][3]
    found = re.findall(r"=(\d+)", cure)
    assert int(found[0]) * int(found[1]) >= 128 and int(found[0]) < 64


def test_hub_lines_name_licences_once_and_gates():
    gated = replace(FULL, student="google/gemma-3-1b-it")
    lines = list(hub_lines(gated))
    texts = [line[2] for line in lines]
    assert sum("Qwen3-4B-Thinking-2507" in text for text in texts) == 1
    (gate,) = [line for line in lines if line[1] == "gated"]
    assert "hf auth login" in gate[3] and "unsloth/gemma-3-1b-it" in gate[3]
    assert list(hub_lines(PROFILES["mini"])) == []


def test_hub_items_are_all_that_the_profiles_fetch():
    for name in ("laptop", "full"):
        profile = PROFILES[name]
        for field in ("teacher", "student", "kd_teacher", "kd_student"):
            assert getattr(profile, field) in HUB
        assert profile.problems in HUB
    for item in HUB.values():
        assert len(item.revision) == 40 and int(item.revision, 16)
        assert item.licence and item.megabytes > 0


def test_revision_of_a_folder_is_none():
    assert revision_of("/models/mine") is None
    assert revision_of("openai/gsm8k") == HUB["openai/gsm8k"].revision
    both = ["openai/gsm8k", "openai/gsm8k", "/models/mine"]
    assert megabytes_of(both) == HUB["openai/gsm8k"].megabytes


@pytest.mark.parametrize(
    ("printed", "gib"),
    [("24564\n", 24564 / 1024), ("", None), ("[N/A]", None)],
)
def test_gpu_memory_reads_nvidia_smi(monkeypatch, printed, gib):
    monkeypatch.setattr(doctor_fit.shutil, "which", lambda name: "smi")
    done = subprocess.CompletedProcess([], 0, stdout=printed)
    monkeypatch.setattr(subprocess, "run", lambda *a, **k: done)
    assert gpu_memory_gib() == gib


def test_fit_checks_leave_mini_alone(monkeypatch):
    assert list(doctor.fit_checks("mini")) == []
    monkeypatch.setattr(doctor, "gpu_memory_gib", lambda: 8.0)
    failed = [c for c in doctor.fit_checks("full") if c.status == "FAIL"]
    assert failed and all(check.cure for check in failed)
