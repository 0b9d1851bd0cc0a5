"""The environment: read, made, re-used, updated and made again."""

import os
import re
import shutil
import sys
from pathlib import Path

import pytest
import yaml

from helpers.cli import environment
from helpers.cli.environment import SetupError, read_pip_list

YAML = Path(__file__).resolve().parents[2] / "environment.yml"
PINS = "dependencies:\n  - pip:\n      # a comment\n      - torch==1.0\n"
PINS += "      - unsloth==2  # another\n\n      - -e .\n"


def test_read_pip_list_agrees_with_pyyaml_and_is_installed():
    """And every package is pinned, once."""
    pins = read_pip_list()
    content = yaml.safe_load(YAML.read_text("utf-8"))
    assert [*pins, "-e ."] == content["dependencies"][-1]["pip"]
    assert len(pins) == len({pin.split("==")[0].lower() for pin in pins})
    for pin in pins:
        assert re.fullmatch(r"[A-Za-z0-9_.-]+==[0-9][0-9a-z.]*", pin), pin
    assert environment.unmet_pins() == []


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
        if run.failing not in run.calls[-1]:
            return True
        if run.killed:
            raise KeyboardInterrupt
        return False

    run.calls, run.failing, run.killed = [], "nothing", False
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


def test_ensure_makes_the_environment_once(course, tmp_path, monkeypatch):
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    python = environment.ensure()
    assert Path(python) == environment.venv_python()
    venv, uv, pins, alone = course.calls
    assert venv == "venv" and uv.endswith("install -q uv")
    assert pins.endswith("torch==1.0") and "--no-deps" not in pins
    assert f"--find-links {tmp_path}" in pins
    assert "--no-deps unsloth==2 " in alone and " -e " in alone
    assert environment.ensure() == python and len(course.calls) == 4


def test_ensure_gives_unsloth_everything_with_a_gpu(course, monkeypatch):
    """And pip installs where uv fails."""
    monkeypatch.setattr(environment, "has_nvidia_gpu", lambda: True)
    course.failing = "uv pip"
    environment.ensure()
    assert course.calls[3] == "pip install torch==1.0 unsloth==2"


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere it is so")
def test_ensure_asks_for_a_torch_without_cuda_first(course):
    course.failing = "--torch-backend cpu"  # an index of one's own
    environment.ensure()
    *_, asked, plain, alone = course.calls
    assert course.failing in asked and asked.endswith("torch==1.0")
    assert course.failing not in plain and plain.endswith("torch==1.0")
    assert "unsloth==2" in alone and course.failing not in alone


@pytest.mark.parametrize("name", ["environment.yml", "pyproject.toml"])
def test_ensure_updates_when_a_file_has_changed(course, name):
    """And distrusts an update that was killed, whatever the file says then."""
    environment.ensure()
    path = environment.REPOSITORY / name
    before = path.read_text()
    path.write_text(f"{before}# changed\n")
    assert environment.find() is None
    course.calls.clear()
    course.failing, course.killed = "override.txt --no-deps", True
    with pytest.raises(KeyboardInterrupt):
        environment.ensure()
    path.write_text(before)
    assert environment.find() is None and "venv" not in course.calls


def test_ensure_makes_anew_what_a_killed_set_up_left(course):
    """And what lost its Python."""
    course.failing, course.killed = "--no-deps", True
    with pytest.raises(KeyboardInterrupt):
        environment.ensure()
    assert environment.find() is None
    course.failing = "nothing"
    environment.ensure()
    environment.venv_python().unlink()
    assert environment.find() is None
    environment.ensure()
    assert course.calls.count("venv") == 3


def test_ensure_keeps_the_environment_when_environment_yml_has_a_typo(course):
    python = environment.ensure()
    typos = {"torch=1": "torch==1.0", "torch==1.O": "torch==1.0"}
    for typo, right in (typos | {"- pop:": "- pip:"}).items():
        file = environment.REPOSITORY / "environment.yml"
        file.write_text(PINS.replace(right, typo))
        course.failing = typo  # no index has it, or there is none
        with pytest.raises(SetupError):
            environment.ensure()
        file.write_text(PINS)
        assert environment.find() == python


def test_ensure_says_so_when_nothing_can_be_installed(course):
    course.failing = "install"
    with pytest.raises(SetupError, match="network"):
        environment.ensure()
    assert environment.find() is None


def test_find_does_not_trust_a_folder_that_was_moved(course, monkeypatch):
    environment.ensure()
    elsewhere = environment.REPOSITORY / "elsewhere"
    hidden = shutil.ignore_patterns(".venv")
    shutil.copytree(environment.REPOSITORY, elsewhere, ignore=hidden)
    assert environment.find() is not None
    monkeypatch.setattr(environment, "REPOSITORY", elsewhere)
    assert environment.find() is None


@pytest.mark.skipif(os.name == "nt", reason="links want a privilege there")
def test_linked_environment_is_not_emptied(course, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    (other / "pyvenv.cfg").write_text("home = somewhere\n")
    environment.VENV.symlink_to(other)
    with pytest.raises(SetupError, match="is a link"):
        environment.ensure()
    assert (other / "pyvenv.cfg").exists() and course.calls == []
