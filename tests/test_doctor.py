"""The doctor: every FAIL has a cure, and only a FAIL fails."""

import sys
from pathlib import Path

import pytest

from helpers.cli import doctor, environment
from helpers.cli.doctor import Check


@pytest.mark.parametrize(
    ("statuses", "expected"),
    [(["OK", "INFO"], 0), (["OK", "FAIL", "OK"], 1)],
)
def test_doctor_fails_only_on_a_fail(monkeypatch, capsys, statuses, expected):
    checks = [Check(status, "x", "y") for status in statuses]
    monkeypatch.setattr(doctor, "all_checks", lambda profile: checks)
    assert doctor.main([]) == expected
    assert len(capsys.readouterr().out.splitlines()) == len(statuses) + 2


def test_python_check_names_the_versions_that_will_do(monkeypatch):
    assert doctor.python_check().status == "OK"
    monkeypatch.setattr(environment, "OLDEST", (3, 98))
    monkeypatch.setattr(environment, "NEWEST", (3, 99))
    check = doctor.python_check()
    assert check.status == "FAIL" and check.cure


@pytest.mark.parametrize(
    ("gib", "profile", "status"),
    [
        (3.8, "mini", "OK"),
        (2.0, "mini", "FAIL"),
        (8.0, "laptop", "FAIL"),
        (None, "mini", "INFO"),
    ],
)
def test_memory_check_asks_what_the_profile_needs(
    monkeypatch, gib, profile, status
):
    monkeypatch.setattr(doctor, "total_memory_gib", lambda: gib)
    check = doctor.memory_check(profile)
    assert check.status == status and bool(check.cure) == (status == "FAIL")


def test_total_memory_is_read_without_psutil_too(monkeypatch):
    measured = doctor.total_memory_gib()
    monkeypatch.setitem(sys.modules, "psutil", None)
    bare = doctor.total_memory_gib()
    assert measured > 1
    assert bare is None or bare == pytest.approx(measured, rel=0.05)


def test_disk_check_fails_when_little_is_left(monkeypatch):
    monkeypatch.setattr(
        doctor.shutil, "disk_usage", lambda path: type("", (), {"free": 1e6})
    )
    check = doctor.disk_check("mini")
    assert check.status == "FAIL" and "free some" in check.cure


def test_writing_check_tries_it(tmp_path):
    assert doctor.writing_check(tmp_path / "runs").status == "OK"
    assert list((tmp_path / "runs").iterdir()) == []
    (tmp_path / "file").write_text("")
    check = doctor.writing_check(tmp_path / "file")
    assert check.status == "FAIL" and check.cure


def test_model_checks_want_whole_weights_for_mini(tmp_path, monkeypatch):
    monkeypatch.setattr(doctor, "MODELS", tmp_path)
    for name, size in zip(doctor.MINI_MODELS, (200_000, 130), strict=False):
        (tmp_path / name).mkdir()
        (tmp_path / name / "model.safetensors").write_bytes(b"x" * size)
    statuses = [check.status for check in doctor.model_checks("mini")]
    assert statuses == ["OK", "FAIL", "FAIL"]  # a stub of 130 bytes is none
    statuses = [check.status for check in doctor.model_checks("full")]
    assert statuses == ["OK", "INFO", "INFO"]


def test_package_checks_compare_with_the_pins(monkeypatch):
    pins = ["pytest==0.0.1", "absent-package==1", "unsloth==0.1"]
    monkeypatch.setattr(environment, "read_pip_list", lambda path: pins)
    old, absent, unsloth = doctor.package_checks()
    assert old.status == "FAIL" and "the pin is 0.0.1" in old.text
    assert "pip install pytest==0.0.1" in old.cure
    assert "not installed" in absent.text
    assert "--no-deps unsloth==0.1" in unsloth.cure


def test_widgets_check_looks_for_the_widget_manager(tmp_path):
    assert doctor.widgets_check(Path(sys.prefix)).status == "OK"
    check = doctor.widgets_check(tmp_path)
    assert check.status == "FAIL" and "jupyterlab_widgets" in check.cure


def test_all_checks_tell_the_hub_check_the_profile(monkeypatch):
    hub = Check("FAIL", "hub", "full has to download", "connect")
    asked = []
    monkeypatch.setattr(environment, "find", lambda: None)
    monkeypatch.setattr(
        doctor, "hub_check", lambda profile: asked.append(profile) or hub
    )
    assert hub in list(doctor.all_checks("full"))
    assert asked == ["full"]
