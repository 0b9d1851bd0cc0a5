"""The doctor: every FAIL has a cure, and only a FAIL fails."""

import json
import shutil
import socket
from dataclasses import replace
from importlib import import_module

import pytest

from helpers.cli import doctor, environment
from helpers.cli.doctor import Check, fit_checks, model_checks, probe
from helpers.profiles import HUB, PROFILES

FULL, LAPTOP = PROFILES["full"], PROFILES["laptop"]


def statuses(checks) -> list[str]:
    return [check.status for check in checks]


def test_doctor_fails_only_on_a_fail(monkeypatch, capsys):
    for given, expected in (["OK", "INFO"], 0), (["OK", "FAIL", "OK"], 1):
        checks = [Check(status, "x", "y", "do z") for status in given]
        monkeypatch.setattr(doctor, "all_checks", lambda _, c=checks: c)
        assert doctor.main([]) == expected
        assert capsys.readouterr().out.count("Cure: do z.") == expected


@pytest.fixture
def here(monkeypatch):
    """An environment that is ready, without a GPU; every probe fails."""
    monkeypatch.setattr(environment, "find", lambda: "python")
    monkeypatch.setattr(environment, "has_nvidia_gpu", lambda: False)
    monkeypatch.setattr(environment, "unmet_pins", lambda: ["pytest==0.1"])
    monkeypatch.setattr(
        doctor, "probe", lambda name, *_: Check("FAIL", name, "no triton")
    )
    return lambda name: {c.name: c for c in doctor.all_checks(name)}


def test_doctor_judges_packages_gpu_and_unsloth(here):
    checks = here("mini")
    assert checks["package"].status == "FAIL"
    assert "pip install --no-deps pytest==0.1" in checks["package"].cure
    assert checks["4-bit"].status == "FAIL"
    assert checks["Unsloth"].status == "INFO"  # PEFT takes its place
    assert checks["GPU"].status == "INFO"
    assert here("full")["GPU"].status == "FAIL"


@pytest.mark.parametrize(
    ("variable", "value"),
    [("DISTILL_RANK", "abc"), ("DISTILL_EPOCH", "3"), ("DISTILL_TRACES", "0")],
)
def test_wrong_setting_is_named(here, monkeypatch, capsys, variable, value):
    monkeypatch.setenv(variable, value)
    assert doctor.main([]) == 1
    *_, check = capsys.readouterr().out.split("\n\n")[0].splitlines()
    assert check.startswith("FAIL") and variable in check


def test_machine_checks_ask_what_the_profile_needs():
    assert set(statuses(doctor.machine_checks(1, 0))) == {"OK"}
    assert set(statuses(doctor.machine_checks(10**6, 10**9))) == {"FAIL"}


def test_compiling_takes_a_compiler_and_pythons_headers(monkeypatch, tmp_path):
    monkeypatch.setenv("CC", "")
    monkeypatch.setattr(doctor.sysconfig, "get_path", lambda _: tmp_path)
    monkeypatch.setattr(doctor.shutil, "which", lambda _: "/usr/bin/gcc")
    assert not doctor.can_compile()
    (tmp_path / "Python.h").touch()
    assert doctor.can_compile()
    monkeypatch.setattr(doctor.shutil, "which", lambda _: None)
    assert not doctor.can_compile()


def test_class_checks_ask_for_a_folder_and_a_port(tmp_path, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as lab:
        monkeypatch.setattr(doctor, "PORT", lab.getsockname()[1])
        checks = list(doctor.class_checks(tmp_path / "new"))
        assert statuses(checks) == ["OK", "INFO"] and "taken" in checks[1].text
    (tmp_path / "file").touch()  # no folder can be made in a file
    checks = list(doctor.class_checks(tmp_path / "file" / "runs"))
    assert statuses(checks) == ["FAIL", "OK"] and checks[0].cure


@pytest.mark.slow
def test_doctor_lets_two_processes_work_together():
    assert probe("processes", doctor.TWO).text == "two work together"


def test_probe_gives_the_last_line():
    assert probe("x", "print('one'); print('L4')") == ("OK", "x", "L4", "")
    check = probe("x", "raise ImportError('libcudart.so')")
    assert check.status == "FAIL" and "libcudart.so" in check.text
    assert probe("x", "raise SystemExit(3)").text == "exit status 3"


def test_fit_checks_full_profile_fits_24_gb_by_the_plan(tmp_path):
    """The mission: one 24 GB card instead of 48."""
    assert statuses(fit_checks(FULL, 24.0)) == ["OK"] * 4
    assert statuses(fit_checks(LAPTOP, 8.0)) == ["OK"] * 4
    assert statuses(fit_checks(FULL, None)) == ["INFO"] * 4
    checks = list(fit_checks(replace(FULL, batch_size=64), 24.0))
    assert statuses(checks) == ["OK", "FAIL", "OK", "OK"]
    assert "DISTILL_BATCH_SIZE below 64" in checks[1].cure
    (tmp_path / "config.json").write_text('{"model_type": "mamba"}')
    checks = list(fit_checks(replace(FULL, teacher=str(tmp_path)), 24.0))
    assert statuses(checks) == ["INFO", "OK", "OK", "OK"]
    assert "mamba" in checks[0].text


def test_model_checks_want_whole_weights_for_mini(tmp_path, monkeypatch):
    monkeypatch.setattr(doctor, "MODELS", tmp_path)
    names = {}
    for name, size in (("teacher", 200_000), ("student", 130)):
        weights = tmp_path / name / "model.safetensors"
        weights.parent.mkdir()
        weights.write_bytes(b"x" * size)  # 130 bytes are Git's stub
        names |= {n: str(weights.parent) for n in (name, f"kd_{name}")}
    whole, stub = model_checks(replace(PROFILES["mini"], **names))
    assert whole.status == "OK"
    assert stub.status == "FAIL" and "git checkout" in stub.cure


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """The hub's cache with every model of `laptop`, as it keeps them."""
    constants = import_module("huggingface_hub.constants")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    for name in {LAPTOP.teacher, LAPTOP.student, LAPTOP.kd_teacher}:
        folder = tmp_path / f"models--{name.replace('/', '--')}"
        snapshot = folder / "snapshots" / HUB[name].revision
        snapshot.mkdir(parents=True)
        files = ["model.safetensors"]
        if name == LAPTOP.kd_teacher:
            files = [f"model-{n}-of-2.safetensors" for n in (1, 2)]
            index = json.dumps({"weight_map": {f: f for f in files}})
            (snapshot / "model.safetensors.index.json").write_text(index)
        for file in (*files, "config.json", "tokenizer_config.json"):
            (snapshot / file).write_text("x")
    return tmp_path


def test_model_checks_say_what_is_to_be_downloaded(cache, monkeypatch):
    assert statuses(model_checks(LAPTOP)) == ["OK"] * 3
    (shard,) = cache.rglob("model-1-of-2.safetensors")
    shard.unlink()  # the download was stopped
    assert statuses(model_checks(LAPTOP)) == ["OK", "OK", "INFO"]
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    *_, check = model_checks(LAPTOP)
    assert check.status == "FAIL" and LAPTOP.kd_teacher in check.text
    local = replace(LAPTOP, kd_teacher=str(cache))
    assert statuses(model_checks(local)) == ["OK"] * 3
    shutil.rmtree(cache)
    assert statuses(model_checks(LAPTOP)) == ["FAIL"] * 3
