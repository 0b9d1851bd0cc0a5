"""The commands: what starts where, and how they end."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import helpers
from helpers import __main__ as entry
from helpers.cli.commands import COMMANDS, Command, command_parser
from helpers.cli.environment import SetupError

ROOT = Path(__file__).resolve().parent.parent
BARE = Path(getattr(sys, "_base_executable", sys.executable))

FOREIGN = """
import sys
sys.path.insert(0, sys.argv[1])
import helpers.__main__, helpers.cli.doctor, helpers.cli.run, helpers.cli.test
import helpers.cli.lab, real_weights
known = set(sys.stdlib_module_names) | {"helpers", "__main__"}
print(sorted({name.split(".")[0] for name in sys.modules} - known))
"""


@pytest.fixture
def bare_course(tmp_path):
    """A copy of the course that has no environment yet."""
    shutil.copytree(
        ROOT / "helpers",
        tmp_path / "helpers",
        ignore=shutil.ignore_patterns("__pycache__"),
    )
    for name in ("environment.yml", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path / name)
    return tmp_path


def bare_run(folder: Path, *arguments: str) -> subprocess.CompletedProcess:
    """Run the commands on a Python without any installed package (-S)."""
    return subprocess.run(
        [str(BARE), "-S", "-m", "helpers", *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_main_imports_the_standard_library_alone():
    done = subprocess.run(
        [sys.executable, "-S", "-c", FOREIGN, str(ROOT)],
        capture_output=True,
        text=True,
    )
    assert done.stdout.strip() == "[]", done.stdout + done.stderr


def test_main_alone_lists_every_command_on_a_bare_python(bare_course):
    done = bare_run(bare_course)
    assert done.returncode == 0
    for name, command in COMMANDS.items():
        assert f"python3 -m helpers {name}" in done.stdout
        assert command.summary in done.stdout
    assert not (bare_course / ".venv").exists()


def test_doctor_on_a_bare_python_says_what_is_missing_and_the_cure(
    bare_course,
):
    done = bare_run(bare_course, "doctor")
    assert done.returncode == 1, done.stderr
    (line,) = [
        line for line in done.stdout.splitlines() if "environment" in line
    ]
    assert line.startswith("FAIL") and "`python3 -m helpers run`" in line
    assert not (bare_course / ".venv").exists()


@pytest.mark.parametrize("name", COMMANDS)
def test_help_on_a_bare_python_makes_no_environment(bare_course, name):
    done = bare_run(bare_course, name, "--help")
    assert done.returncode == 0, done.stderr
    assert "--profile" in done.stdout and "--seed" in done.stdout
    assert not (bare_course / ".venv").exists()


@pytest.mark.slow
@pytest.mark.parametrize("name", COMMANDS)
def test_help_of_every_command_shows_the_common_options(name, capsys):
    with pytest.raises(SystemExit) as ended:
        entry._load(name)(["--help"])
    assert ended.value.code == 0
    text = capsys.readouterr().out
    for option in ("--profile", "--seed", "--help"):
        assert option in text


def test_main_suggests_the_command_that_was_meant(capsys):
    assert entry.main(["tset"]) == 2
    assert "Did you mean `test`?" in capsys.readouterr().err


@pytest.fixture
def command(monkeypatch):
    """A command `x` that runs here and does what the test puts in it."""
    monkeypatch.setitem(COMMANDS, "x", Command("unused:main", "a test"))
    monkeypatch.setattr(entry.environment, "ensure", lambda: sys.executable)
    for name in ("DISTILL_PROFILE", "DISTILL_SEED", "HF_HUB_OFFLINE"):
        monkeypatch.setenv(name, os.environ.get(name, ""))  # put back after

    def install(function):
        monkeypatch.setattr(entry, "_load", lambda name: function)

    return install


def test_main_returns_the_status_of_the_command(command):
    command(lambda options: 3 if options == ["--fast"] else 4)
    assert entry.main(["x", "--fast"]) == 3


def test_main_sets_profile_and_seed_before_the_command_starts(command):
    seen = []
    command(
        lambda options: seen.append(
            (os.environ["DISTILL_PROFILE"], os.environ["DISTILL_SEED"])
        )
    )
    entry.main(["x", "--profile", "laptop", "--seed=11"])
    assert seen == [("laptop", "11")]


def test_main_names_the_profiles_when_the_shell_asks_for_another(
    command, monkeypatch, capsys
):
    monkeypatch.setenv("DISTILL_PROFILE", "huge")
    with pytest.raises(SystemExit) as ended:
        entry.main(["x"])
    assert ended.value.code == 2
    assert "'huge'; set it to one of mini, laptop" in capsys.readouterr().err


def test_main_ends_with_130_when_interrupted(command):
    def interrupted(options):
        raise KeyboardInterrupt

    command(interrupted)
    assert entry.main(["x"]) == 130


def test_main_shows_a_setup_error_as_a_sentence(command, monkeypatch, capsys):
    def ensure():
        raise SetupError("The disk is full: free some.")

    monkeypatch.setattr(entry.environment, "ensure", ensure)
    assert entry.main(["x"]) == 1
    assert capsys.readouterr().err == "\nThe disk is full: free some.\n"


def test_hand_over_passes_arguments_and_status():
    code = (
        "import sys; from helpers import __main__ as entry;"
        "sys.exit(entry._hand_over(sys.executable, ['no-such-command']))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 2
    assert "There is no command `no-such-command`" in done.stderr


def test_command_parser_refuses_an_unknown_profile(capsys):
    with pytest.raises(SystemExit) as ended:
        command_parser("run", "").parse_args(["--profile", "huge"])
    assert ended.value.code == 2
    assert "mini" in capsys.readouterr().err


def test_select_profile_turns_the_hub_off_for_mini_alone(monkeypatch):
    for name in ("DISTILL_PROFILE", "HF_HUB_OFFLINE", "DISTILL_SET_OFFLINE"):
        monkeypatch.setenv(name, "")  # so that monkeypatch puts it back
        monkeypatch.delenv(name)
    helpers.select_profile("mini")
    assert os.environ["HF_HUB_OFFLINE"] == "1"
    helpers.select_profile("laptop")
    assert "HF_HUB_OFFLINE" not in os.environ
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")  # the user's own wish
    helpers.select_profile("full")
    assert os.environ["HF_HUB_OFFLINE"] == "1"


def test_import_sets_the_switches_that_torch_reads():
    for name in ("OMP_WAIT_POLICY", "TOKENIZERS_PARALLELISM"):
        assert name in os.environ
