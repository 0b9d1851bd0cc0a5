"""The commands: what starts where, and how they end."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

import helpers
from helpers import CourseError
from helpers.cli import main as entry
from helpers.cli.commands import COMMANDS, Command
from helpers.files.disk import write_atomic

ROOT = Path(__file__).resolve().parents[2]
BARE = Path(getattr(sys, "_base_executable", sys.executable))
# Modules that a Python too old for the pins has not: the start says so.
OLD = """
import sys
sys.modules["tomllib"] = None
from helpers.cli import environment
environment.OLDEST = (3, 98)
from helpers.cli.main import main
sys.exit(main(["doctor"]))
"""


@pytest.fixture(scope="module")
def bare_course(tmp_path_factory):
    """A copy of the course that has no environment yet."""
    folder = tmp_path_factory.mktemp("course")
    hidden = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "helpers", folder / "helpers", ignore=hidden)
    for name in ("environment.yml", "pyproject.toml"):
        shutil.copy(ROOT / name, folder / name)
    (folder / "data").mkdir()
    for path in (ROOT / "data").glob("*.toml"):
        shutil.copy(path, folder / "data")
    return folder


def bare_run(folder: Path, *arguments: str) -> subprocess.CompletedProcess:
    """Run Python without any installed package (-S)."""
    options = {"capture_output": True, "text": True, "timeout": 120}
    options["env"] = {**os.environ, "PYTHONPATH": ""}
    return subprocess.run([BARE, "-S", *arguments], cwd=folder, **options)


def test_main_on_an_old_python_says_which_ones_will_do(bare_course):
    done = bare_run(bare_course, "-c", OLD)
    assert done.returncode == 2
    assert "3.11 to 3.14" in done.stderr and "Traceback" not in done.stderr


def test_bare_python_gets_help_and_doctor_without_an_environment(bare_course):
    done = bare_run(bare_course, "-m", "helpers")
    assert done.returncode == 0
    for name, command in COMMANDS.items():
        assert f"python3 -m helpers {name}" in done.stdout
        assert command.summary in done.stdout
    for name in ("sft", "hosted"):
        done = bare_run(bare_course, "-m", "helpers", name, "--help")
        assert done.returncode == 0, done.stderr
        assert "--profile" in done.stdout and "--seed" in done.stdout
    done = bare_run(bare_course, "-m", "helpers", "doctor")
    assert done.returncode == 1, done.stderr
    failed = [s for s in done.stdout.splitlines() if s.startswith("FAIL")]
    assert "`python3 -m helpers run`" in failed[-1]
    assert not (bare_course / ".venv").exists()


@pytest.fixture
def command(monkeypatch):
    """A command `x` that runs here and does what the test puts in it."""
    monkeypatch.setitem(COMMANDS, "x", Command("x:main", "a test"))
    monkeypatch.setattr(entry.environment, "ensure", lambda: sys.executable)
    for name in ("DISTILL_PROFILE", "DISTILL_SEED", "HF_HUB_OFFLINE"):
        monkeypatch.setenv(name, os.environ.get(name, ""))  # put back after

    def install(function):
        module = SimpleNamespace(main=function)
        monkeypatch.setitem(sys.modules, "helpers.x", module)

    return install


def test_profile_and_seed_are_set_first(command, monkeypatch, capsys):
    names = "DISTILL_PROFILE", "DISTILL_SEED"
    command(lambda options: [*options, *(os.environ[n] for n in names)])
    options = ["--profile", "laptop", "--seed=11"]
    assert entry.main(["x", *options]) == [*options, "laptop", "11"]
    monkeypatch.setenv("DISTILL_SEED", "-1")
    with pytest.raises(SystemExit):
        entry.main(["x"])
    assert "--seed: " in capsys.readouterr().err


def test_main_suggests_the_command_that_was_meant(capsys):
    assert entry.main(["tset"]) == 2
    assert "Did you mean `test`?" in capsys.readouterr().err


def refuse(options):
    raise CourseError("DISTILL_RANK=-1: give at least 1.")


@pytest.mark.parametrize(
    ("function", "part"),
    [
        (refuse, "DISTILL_RANK=-1: give at least 1."),
        (
            lambda _: Path("no-such-folder/file").read_text(),
            "No such file or directory: no-such-folder",
        ),
        (lambda _: write_atomic(ROOT / "tests", ""), "cannot write "),
    ],
)
def test_an_error_is_shown_as_its_sentence(command, capsys, function, part):
    command(function)
    assert entry.main(["x"]) == 2
    shown = capsys.readouterr()
    assert part in shown.err and shown.err.count("\n") == 1
    assert "Traceback" not in shown.err and shown.out == ""
    assert entry.main(["x", "--debug"]) == 2
    assert "Traceback" in capsys.readouterr().err


@pytest.mark.skipif(os.name == "nt", reason="the shell of a POSIX system")
def test_main_is_quiet_when_the_reader_has_gone():
    read, write = os.pipe()
    os.close(read)
    command, pipe = [sys.executable, "-m", "helpers"], subprocess.PIPE
    done = subprocess.run(command, stdout=write, stderr=pipe, cwd=ROOT)
    os.close(write)
    assert done.stderr == b""


@pytest.mark.slow
@pytest.mark.parametrize(
    "line",
    [
        "run --profile huge",
        "run --seed -1",
        "lab --port x",
        "sft --limit 0",
        "distill --budget 0",
        "distill --split validation --write",
        "evaluate --limit 0",
        "traces --limit 0",
        "traces --concurrency 0",
        "traces --timeout 0",
        "traces --shard 2/2",
    ],
)
def test_command_refuses_what_is_out_of_range(line, capsys):
    name, *options = line.split()
    with pytest.raises(SystemExit) as ended:
        COMMANDS[name].main(options)
    assert ended.value.code == 2
    (reason,) = capsys.readouterr().err.splitlines()[-1:]
    assert reason.startswith(f"python3 -m helpers {name}: error: ")
    assert options[-2] in reason or "--write" in reason


def test_select_profile_turns_hub_and_gpus_off_for_mini_alone(monkeypatch):
    names = ("HF_HUB_OFFLINE", "CUDA_VISIBLE_DEVICES")
    for name in ("DISTILL_PROFILE", "DISTILL_BEFORE_MINI", *names):
        monkeypatch.setenv(name, "")  # so that monkeypatch puts it back
        monkeypatch.delenv(name)
    for _ in range(2):  # a kernel's helpers, after those of JupyterLab
        helpers.select_profile("mini")
        assert [os.environ[name] for name in names] == ["1", "-1"]
    helpers.select_profile("laptop")
    assert {*names}.isdisjoint(os.environ)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")  # the user's own wishes
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    for profile, gpus in (("mini", "-1"), ("mini", "-1"), ("full", "0")):
        helpers.select_profile(profile)
        assert [os.environ[name] for name in names] == ["1", gpus]
