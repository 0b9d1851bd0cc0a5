"""Links and first cell for Colab and Kaggle: written, renewed, harmless."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys

import nbformat
import pytest

from helpers.cli import environment, hosted
from helpers.cli.environment import REPOSITORY
from helpers.cli.hosted import NOTEBOOKS, prepare

NAME = "10_scaling_up.ipynb"
PIP = """
import json, os, sys
with open(os.environ["CALLS"], "a") as file:
    print(json.dumps(sys.argv[1:]), file=file)
"""


@pytest.fixture
def notebook(tmp_path):
    return shutil.copy(NOTEBOOKS / NAME, tmp_path / NAME)


def test_prepare_keeps_everything_else(notebook):
    before = nbformat.read(notebook, as_version=4)
    prepare(notebook, "me/course")
    after = nbformat.read(notebook, as_version=4)
    nbformat.validate(after)
    assert after.cells[2:] == before.cells[1:]
    title = after.cells[0].source
    assert title.startswith(before.cells[0].source.splitlines()[0])
    assert f"github/me/course/blob/main/notebooks/{NAME}" in title
    assert "https://github.com/me/course" in after.cells[1].source
    assert "![" not in title  # no remote images


def test_prepare_twice_renews(notebook):
    prepare(notebook, "me/course")
    once = notebook.read_text(encoding="utf-8")
    prepare(notebook, "me/course")
    assert notebook.read_text(encoding="utf-8") == once
    prepare(notebook, "you/fork")
    assert "me/course" not in notebook.read_text(encoding="utf-8")


def test_first_cell_does_nothing_elsewhere(tmp_path):
    cell = hosted.CELL.format(repository="me/course")
    assert max(map(len, cell.splitlines())) <= 79
    clean = {"PATH": "", "SYSTEMROOT": ""}
    done = subprocess.run(
        [sys.executable, "-c", cell], cwd=tmp_path, env=clean
    )
    assert done.returncode == 0 and not list(tmp_path.iterdir())


def test_first_cell_fetches_and_installs_on_a_hosted_machine(tmp_path):
    """git and the installation are stood in for; the order is the cell's."""
    cell = hosted.CELL.format(repository="me/course")
    spy = (
        "import json, os, subprocess\n"
        "calls = []\n"
        "def run(command, cwd='.', check=False):\n"
        "    calls.append([*command[:2], os.path.basename(os.getcwd())])\n"
        "    if command[0] == 'git':\n"
        "        os.makedirs('course/notebooks')\n"
        "        os.mkdir('course/helpers')\n"
        "subprocess.run = run\n"
    )
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            f"{spy}{cell}\n{cell}\nprint(json.dumps(calls))",
        ],
        cwd=tmp_path,
        env={"COLAB_RELEASE_TAG": "1", "PATH": "", "SYSTEMROOT": ""},
        capture_output=True,
        text=True,
        check=True,
    )
    install = [sys.executable, "-m", "notebooks"]
    assert json.loads(done.stdout) == [
        ["git", "clone", tmp_path.name],
        install,
        install,  # run again: fetched already
    ]


@pytest.mark.parametrize(
    ("needs", "goes"), [("2.5.1", True), ("PINNED", False), (None, False)]
)
def test_install_removes_a_torchvision_for_another_torch(
    tmp_path, needs, goes
):
    """As on Colab: pip is stood in for, torchvision is preinstalled."""
    pins = environment.read_pip_list(REPOSITORY / "environment.yml")
    (torch,) = [pin for pin in pins if pin.startswith("torch==")]
    (tmp_path / "pip").mkdir()
    (tmp_path / "pip" / "__init__.py").write_text("")
    (tmp_path / "pip" / "__main__.py").write_text(PIP)
    if needs:
        needs = torch if needs == "PINNED" else f"torch=={needs}"
        folder = tmp_path / "torchvision-0.20.1.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text(
            "Metadata-Version: 2.1\nName: torchvision\nVersion: 0.20.1\n"
            f"Requires-Dist: numpy\nRequires-Dist: {needs}\n"
        )
    code = "from helpers.cli import hosted; hosted.main(['--install'])"
    subprocess.run(
        [sys.executable, "-c", code],
        env={
            **os.environ,
            "CALLS": str(tmp_path / "calls"),
            "PYTHONPATH": os.pathsep.join([str(tmp_path), str(REPOSITORY)]),
        },
        check=True,
    )
    text = (tmp_path / "calls").read_text()
    calls = [json.loads(line) for line in text.splitlines()]
    assert (calls[0] == ["uninstall", "-q", "-y", "torchvision"]) is goes
    first, second = calls[-2:]
    names = {item.split("==")[0] for item in first if "==" in item}
    assert {"torch", "transformers", "trl"} <= names
    assert not names & {"jupyterlab", "ipykernel", "pytest", "unsloth"}
    assert "--no-deps" in second and len(calls) == 2 + goes
    assert {"unsloth", "unsloth_zoo"} == {
        item.split("==")[0] for item in second if "==" in item
    }


@pytest.mark.parametrize(
    "argv", [[], ["--repository", "https://github.com/me/course"]]
)
def test_main_wants_owner_and_name(argv):
    with pytest.raises(SystemExit):
        hosted.main(argv)
