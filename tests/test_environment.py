"""The environment: read, made, re-used, updated and repaired."""

import re
import sys
import textwrap
import venv
from pathlib import Path

import pytest
import yaml

from helpers.cli import environment
from helpers.cli.environment import SetupError, StepFailed, Steps

ROOT = Path(__file__).resolve().parent.parent
YAML = ROOT / "environment.yml"


def yaml_pip_list(path: Path) -> list[str]:
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    (found,) = [d for d in content["dependencies"] if isinstance(d, dict)]
    return found["pip"]


def test_read_pip_list_agrees_with_pyyaml():
    assert environment.read_pip_list(YAML) == yaml_pip_list(YAML)


def test_read_pip_list_copes_with_comments_quotes_and_what_follows(tmp_path):
    path = tmp_path / "environment.yml"
    path.write_text(
        textwrap.dedent("""\
            dependencies:
              - python=3.11
              - pip:  # the pins
                  - "torch==1.0"   # quoted

                  # a comment of its own
                  - 'git+https://host/x#egg=x'
                  - -e .
              - after=1
            """)
    )
    found = environment.read_pip_list(path)
    assert found == ["torch==1.0", "git+https://host/x#egg=x", "-e ."]
    assert found == yaml_pip_list(path)


@pytest.mark.parametrize(
    ("text", "words"),
    [("name: x\n", "no `pip:` list"), ("- pip:\n    nonsense\n", "nonsense")],
)
def test_read_pip_list_names_what_it_cannot_read(tmp_path, text, words):
    path = tmp_path / "environment.yml"
    path.write_text(text)
    with pytest.raises(SetupError, match=words):
        environment.read_pip_list(path)


def test_read_pip_list_says_so_when_there_is_no_file(tmp_path):
    with pytest.raises(SetupError, match="a complete clone of the course"):
        environment.read_pip_list(tmp_path / "environment.yml")


def test_environment_pins_every_package_exactly_and_ends_with_itself():
    *pins, last = environment.read_pip_list(YAML)
    assert last == "-e ."
    assert len(pins) == len({pin.split("==")[0].lower() for pin in pins})
    for pin in pins:
        assert re.fullmatch(r"[A-Za-z0-9_.-]+==[0-9][0-9a-z.]*", pin), pin


def test_environment_pins_are_what_is_installed():
    assert environment.unmet_pins() == []


def test_meets_pin_ignores_a_local_part_and_nothing_else(monkeypatch):
    monkeypatch.setattr(
        environment, "installed_version", {"torch": "2.13.0+cpu"}.get
    )
    assert environment.meets_pin("torch==2.13.0")
    assert not environment.meets_pin("torch==2.13")
    assert not environment.meets_pin("absent==1")


@pytest.mark.parametrize("version", [(3, 10), (3, 15), (2, 7)])
def test_check_python_refuses_in_one_sentence_with_a_cure(version):
    with pytest.raises(SetupError, match="need Python 3.11") as caught:
        environment.check_python(version)
    assert "\n" not in str(caught.value)


def test_check_python_accepts_the_versions_the_pins_exist_for():
    for minor in range(11, 15):
        environment.check_python((3, minor))


class FakeSteps(Steps):
    """Makes a real, empty .venv; writes down what it was asked to install."""

    calls: list[str] = []
    failure: BaseException | None = None
    has_pip = True

    def make_venv(self):
        self.calls.append("make")
        venv.create(self.venv, clear=True, with_pip=False)

    def pip_works(self):
        return self.has_pip

    def install(self, ordinary, unsloth, *, gpu, again):
        self.calls.append("again" if again else "install")
        assert ordinary == ["torch==1.0"] and unsloth == ["unsloth==2"]
        self._run([sys.executable, "-c", "print('dns error: no route')"])
        if self.failure is not None:
            raise self.failure

    def install_course(self):
        self.calls.append("course")


@pytest.fixture
def course(tmp_path, monkeypatch):
    """An empty course whose set-up installs nothing."""
    (tmp_path / "environment.yml").write_text(
        "dependencies:\n  - pip:\n      - torch==1.0\n"
        "      - unsloth==2\n      - -e .\n"
    )
    (tmp_path / "pyproject.toml").write_text("[project]\n")
    monkeypatch.setattr(environment, "REPOSITORY", tmp_path)
    monkeypatch.setattr(environment, "VENV", tmp_path / ".venv")
    monkeypatch.setattr(environment, "Steps", FakeSteps)
    monkeypatch.setattr(environment, "has_nvidia_gpu", lambda: False)
    monkeypatch.setattr(environment, "unmet_pins", lambda: ["torch==1.0"])
    monkeypatch.setattr(FakeSteps, "calls", [])
    monkeypatch.setattr(FakeSteps, "failure", None)
    monkeypatch.setattr(FakeSteps, "has_pip", True)
    return tmp_path


def test_ensure_uses_a_python_that_has_every_pin(course, monkeypatch):
    monkeypatch.setattr(environment, "unmet_pins", lambda: [])
    assert environment.ensure() == sys.executable
    assert FakeSteps.calls == [] and not (course / ".venv").exists()


def test_ensure_makes_the_environment_once(course):
    python = environment.ensure()
    assert Path(python) == environment.venv_python()
    assert FakeSteps.calls == ["make", "install", "course"]
    assert environment.ensure() == python
    assert FakeSteps.calls == ["make", "install", "course"]


@pytest.mark.parametrize("name", ["environment.yml", "pyproject.toml"])
def test_ensure_updates_when_a_file_has_changed(course, name):
    environment.ensure()
    with open(course / name, "a", encoding="utf-8") as file:
        file.write("# changed\n")
    assert environment.find() is None
    environment.ensure()
    assert FakeSteps.calls[3:] == ["install", "course"]
    assert environment.find() is not None


def test_ensure_repairs_what_an_interrupted_run_left(course, monkeypatch):
    monkeypatch.setattr(FakeSteps, "failure", KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        environment.ensure()
    assert environment.find() is None
    monkeypatch.setattr(FakeSteps, "failure", None)
    environment.ensure()
    assert FakeSteps.calls == ["make", "install", "again", "course"]


def test_ensure_distrusts_an_interrupted_update(course, monkeypatch):
    environment.ensure()
    text = (course / "environment.yml").read_text()
    (course / "environment.yml").write_text(text + "# changed\n")
    monkeypatch.setattr(FakeSteps, "failure", KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        environment.ensure()
    (course / "environment.yml").write_text(text)  # the old one again
    assert environment.find() is None


def test_ensure_starts_afresh_when_its_python_cannot_run(course):
    environment.ensure()
    environment.venv_python().unlink()
    assert environment.find() is None
    environment.ensure()
    assert FakeSteps.calls[3:] == ["make", "install", "course"]


def test_ensure_starts_afresh_when_pip_is_half_made(course, monkeypatch):
    monkeypatch.setattr(FakeSteps, "failure", KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        environment.ensure()
    monkeypatch.setattr(FakeSteps, "failure", None)
    monkeypatch.setattr(FakeSteps, "has_pip", False)
    environment.ensure()
    assert FakeSteps.calls[2:] == ["make", "install", "course"]


def test_ensure_shows_the_log_and_the_cure_of_a_failure(course, monkeypatch):
    monkeypatch.setattr(FakeSteps, "failure", StepFailed())
    with pytest.raises(SetupError, match="check the network") as caught:
        environment.ensure()
    assert "dns error: no route" in str(caught.value)
    assert environment.find() is None


def test_ensure_says_so_when_it_may_not_write(course):
    (course / "data").write_text("a file where a folder should be")
    with pytest.raises(SetupError, match="cannot be written"):
        environment.ensure()


def test_ensure_stops_before_the_disk_is_full(course, monkeypatch):
    monkeypatch.setattr(environment, "FREE_GIB", 1e9)
    with pytest.raises(SetupError, match="GiB left. Free some"):
        environment.ensure()
    assert FakeSteps.calls == []


def test_stamp_is_not_valid_for_a_folder_that_was_moved(course, monkeypatch):
    environment.ensure()
    version = environment.venv_version()
    assert environment.stamp_is_valid(version)
    elsewhere = course / "elsewhere"
    elsewhere.mkdir()
    for name in ("environment.yml", "pyproject.toml"):
        (elsewhere / name).write_bytes((course / name).read_bytes())
    monkeypatch.setattr(environment, "REPOSITORY", elsewhere)
    assert not environment.stamp_is_valid(version)
