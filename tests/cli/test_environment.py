"""The environment: read, made, re-used, updated and made again."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from helpers.cli import environment
from helpers.cli.environment import SetupError, read_pip_list

YAML = Path(__file__).resolve().parents[2] / "environment.yml"
PINS = "dependencies:\n  - pip:\n      # a comment\n      - torch==1.0\n"
PINS += "      - unsloth==2  # another\n\n      - -e .\n"


def test_read_pip_list_agrees_with_pyyaml():
    """And every package is pinned, once."""
    pins = read_pip_list()
    content = yaml.safe_load(YAML.read_text("utf-8"))
    assert [*pins, "-e ."] == content["dependencies"][-1]["pip"]
    assert len(pins) == len({pin.split("==")[0].lower() for pin in pins})
    for pin in pins:
        assert re.fullmatch(r"[A-Za-z0-9_.-]+==[0-9][0-9a-z.]*", pin), pin


def test_environment_pins_are_what_is_installed():
    assert environment.unmet_pins() == []


@pytest.mark.parametrize("version", [(3, 10), (3, 15), (2, 7)])
def test_check_python_refuses_versions_without_the_pins(version):
    with pytest.raises(SetupError, match=f"{version[0]}.{version[1]}"):
        environment.check_python(version)
    for minor in range(11, 15):
        environment.check_python((3, minor))


@pytest.fixture
def course(tmp_path, monkeypatch):
    """A course whose installers are written down, and fail when told to."""
    (tmp_path / "environment.yml").write_text(PINS)
    (tmp_path / "pyproject.toml").write_text("[project]\n")
    venv = tmp_path / ".venv"
    monkeypatch.setattr(environment, "REPOSITORY", tmp_path)
    monkeypatch.setattr(environment, "VENV", venv)
    monkeypatch.setattr(environment, "STAMP", venv / "distill-stamp")
    monkeypatch.setattr(environment, "has_nvidia_gpu", lambda: False)
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)
    real = environment.run

    def run(command: list[str]) -> bool:
        if "venv" in command:
            run.calls.append("venv")
            return real([*command, "--without-pip"])
        run.calls.append(" ".join(command[2:]))
        for word, error in run.failing.items():
            if word in run.calls[-1]:
                if error:
                    raise error
                return False
        return True

    run.calls, run.failing, run.file = [], {}, tmp_path / "environment.yml"
    monkeypatch.setattr(environment, "run", run)
    return run


def test_ensure_uses_a_python_that_has_every_pin(course, monkeypatch):
    """As conda's, if this very folder is installed in it."""
    where = environment.REPOSITORY / "helpers"
    monkeypatch.setattr(environment, "unmet_pins", lambda: [])
    monkeypatch.setattr(environment, "output_of", lambda *_: f"{where}\n")
    assert environment.ensure() == sys.executable and course.calls == []
    monkeypatch.setattr(environment, "output_of", lambda *_: "/other/helpers")
    assert environment.find() is None


def test_ensure_makes_the_environment_once(course):
    python = environment.ensure()
    assert Path(python) == environment.venv_python()
    venv, uv, pins, alone = course.calls
    assert venv == "venv" and uv.endswith("install -q uv")
    assert pins.endswith("torch==1.0") and "--no-deps" not in pins
    assert "--no-deps unsloth==2 " in alone and " -e " in alone
    assert environment.ensure() == python and len(course.calls) == 4


def test_ensure_gives_unsloth_everything_with_a_gpu(course, monkeypatch):
    monkeypatch.setattr(environment, "has_nvidia_gpu", lambda: True)
    environment.ensure()
    assert course.calls[2].endswith("torch==1.0 unsloth==2")


def test_ensure_falls_back_to_pip_when_uv_fails(course):
    course.failing = {"uv pip": None}
    environment.ensure()
    assert course.calls[3] == "pip install torch==1.0"


def test_ensure_honours_pip_find_links(course, tmp_path, monkeypatch):
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    environment.ensure()
    assert f"--find-links {tmp_path}" in course.calls[2]


@pytest.mark.parametrize("name", ["environment.yml", "pyproject.toml"])
def test_ensure_updates_when_a_file_has_changed(course, name):
    environment.ensure()
    with open(environment.REPOSITORY / name, "a") as file:
        file.write("# changed\n")
    assert environment.find() is None
    course.calls.clear()
    environment.ensure()
    assert "venv" not in course.calls and environment.find() is not None


def test_ensure_makes_anew_what_a_killed_set_up_left(course):
    course.failing = {"--no-deps": KeyboardInterrupt()}
    with pytest.raises(KeyboardInterrupt):
        environment.ensure()
    assert environment.find() is None
    course.failing = {}
    environment.ensure()
    assert course.calls.count("venv") == 2


def test_ensure_distrusts_a_killed_update(course):
    environment.ensure()
    course.file.write_text(PINS + "# changed\n")
    course.failing = {"override.txt --no-deps": KeyboardInterrupt()}
    with pytest.raises(KeyboardInterrupt):
        environment.ensure()
    course.file.write_text(PINS)  # the old one again
    assert environment.find() is None


@pytest.mark.parametrize(
    ("right", "typo"),
    [
        ("torch==1.0", "torch=1"),
        ("torch==1.0", "torch==1.O"),
        ("- torch", "torch"),
        ("- pip:", "- pop:"),
    ],
)
def test_ensure_keeps_the_environment_when_environment_yml_has_a_typo(
    course, right, typo
):
    python = environment.ensure()
    course.file.write_text(PINS.replace(right, typo))
    course.failing = {typo: None}  # no index has it, or there is none
    with pytest.raises(SetupError):
        environment.ensure()
    course.file.write_text(PINS)
    assert environment.find() == python


def test_ensure_starts_afresh_when_its_python_cannot_run(course):
    environment.ensure()
    environment.venv_python().unlink()
    assert environment.find() is None
    environment.ensure()
    assert course.calls.count("venv") == 2


def test_ensure_says_so_when_nothing_can_be_installed(course):
    course.failing = {"install": None}
    with pytest.raises(SetupError, match="network"):
        environment.ensure()
    assert environment.find() is None


def test_find_does_not_trust_a_folder_that_was_moved(course, monkeypatch):
    environment.ensure()
    elsewhere = environment.REPOSITORY / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "environment.yml").write_text(PINS)
    (elsewhere / "pyproject.toml").write_text("[project]\n")
    assert environment.find() is not None
    monkeypatch.setattr(environment, "REPOSITORY", elsewhere)
    assert environment.find() is None


@pytest.mark.parametrize(
    ("status", "text", "expected"),
    [(0, b"GPU 0: H100", True), (0, b"", False), (9, b"no GPU", False)],
)
def test_has_nvidia_gpu_asks_nvidia_smi(monkeypatch, status, text, expected):
    done = subprocess.CompletedProcess([], status, text)
    monkeypatch.setattr(environment.subprocess, "run", lambda *_, **__: done)
    assert environment.has_nvidia_gpu() is expected
