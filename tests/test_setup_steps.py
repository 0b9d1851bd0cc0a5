"""The steps of the set-up: the lock, uv and pip, the GPU, the cures."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from helpers.cli import environment
from helpers.cli import environment as setup_steps
from helpers.cli.environment import StepFailed, Steps

ROOT = Path(__file__).resolve().parent.parent
HOLD = """
import sys, time
from pathlib import Path
from helpers.cli.environment import setup_lock
with setup_lock(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(float(sys.argv[2]))
"""


def test_setup_lock_waits_for_its_owner_and_names_it(tmp_path, capsys):
    path = tmp_path / "setup.lock"
    owner = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path), "1"],
        stdout=subprocess.PIPE,
        cwd=ROOT,
    )
    with owner:
        assert owner.stdout.readline().strip() == b"held"
        with setup_steps.setup_lock(path):
            assert owner.wait(timeout=10) == 0
    assert f"Process {owner.pid} is setting up" in capsys.readouterr().err


def test_setup_lock_of_a_killed_process_stops_nobody(tmp_path, capsys):
    path = tmp_path / "setup.lock"
    owner = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path), "600"],
        stdout=subprocess.PIPE,
        cwd=ROOT,
    )
    with owner:
        owner.stdout.readline()
        owner.kill()
    with setup_steps.setup_lock(path):
        assert path.read_text() == str(os.getpid())
    assert capsys.readouterr().err == ""


@pytest.fixture
def recorded(tmp_path, monkeypatch):
    """Steps whose programs are written down; those with a word fail."""
    steps = Steps(tmp_path, python="py", repository=tmp_path)
    steps.commands, steps.failing = [], ""

    def run(command):
        text = " ".join(command)
        steps.commands.append(text)
        if steps.failing and steps.failing in text:
            raise StepFailed

    monkeypatch.setattr(steps, "_run", run)
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)
    return steps


def test_install_gives_unsloth_no_dependencies_without_a_gpu(recorded):
    recorded.install(["torch==1"], ["unsloth==2"], gpu=False, again=False)
    uv, torch, unsloth = recorded.commands
    assert uv == "py -m pip install uv"
    assert torch.endswith("--compile-bytecode torch==1")
    assert unsloth.endswith("--no-deps unsloth==2")


def test_install_gives_unsloth_everything_with_a_gpu(recorded):
    recorded.install(["torch==1"], ["unsloth==2"], gpu=True, again=False)
    _, everything = recorded.commands
    assert everything.endswith("torch==1 unsloth==2")
    assert "--no-deps" not in everything


def test_install_falls_back_to_pip_when_uv_fails(recorded):
    recorded.failing = "py -m uv"
    recorded.install(["torch==1"], [], gpu=False, again=True)
    assert recorded.commands[-1] == (
        "py -m pip install --force-reinstall torch==1"
    )


def test_install_uses_a_folder_of_wheels_only_if_it_exists(
    recorded, tmp_path, monkeypatch
):
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    recorded.install(["torch==1"], [], gpu=False, again=False)
    assert f"--find-links {tmp_path} torch==1" in recorded.commands[-1]
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "absent"))
    recorded.install(["torch==1"], [], gpu=False, again=False)
    assert "--find-links" not in recorded.commands[-1]


@pytest.mark.parametrize(
    ("log", "cure"),
    [
        ("OSError: [Errno 28] No space left on device", "disk is full"),
        ("error: dns error: failed to lookup", "check the network"),
        ("ensurepip is not available", "python3-venv"),
        ("No solution found when resolving", "does not exist for this"),
        ("something else", "Read the lines above"),
    ],
)
def test_cure_for_fits_the_log(log, cure):
    assert cure in setup_steps.cure_for(log)


def test_has_nvidia_gpu_asks_nvidia_smi(monkeypatch):
    monkeypatch.setattr(environment.shutil, "which", lambda name: name)
    for status, text, expected in (
        (0, "GPU 0: NVIDIA H100", True),
        (0, "", False),
        (9, "no driver", False),
    ):
        done = subprocess.CompletedProcess([], status, text, "")
        monkeypatch.setattr(
            environment.subprocess, "run", lambda *a, done=done, **k: done
        )
        assert environment.has_nvidia_gpu() is expected
    monkeypatch.setattr(environment.shutil, "which", lambda name: None)
    assert environment.has_nvidia_gpu() is False
