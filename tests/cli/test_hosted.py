"""Links and first cell for Colab and Kaggle: written, renewed, harmless."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys

import nbformat
import pytest

from helpers.cli import hosted
from helpers.cli.environment import REPOSITORY
from helpers.cli.hosted import NOTEBOOKS, prepare

NAME = "10_scaling_up.ipynb"
CELL = hosted.CELL.format(repository="me/course")
# git and the installation are stood in for.
SPY = """
import json, os, subprocess
def run(command, cwd='.', check=False):
    print(json.dumps([*command[:2], os.path.basename(os.getcwd())]))
    if command[0] == 'git':
        os.makedirs('course/notebooks')
        os.mkdir('course/helpers')
subprocess.run = run
"""
PIP = """
import json, os, sys
with open(os.environ["CALLS"], "a") as file:
    print(json.dumps(sys.argv[1:]), file=file)
"""


def test_prepare_keeps_the_rest_and_renews(tmp_path):
    path = shutil.copy(NOTEBOOKS / NAME, tmp_path / NAME)
    before = nbformat.read(path, as_version=4)
    prepare(path, "me/course")
    once = path.read_text(encoding="utf-8")
    prepare(path, "me/course")
    assert path.read_text(encoding="utf-8") == once
    after = nbformat.read(path, as_version=4)
    nbformat.validate(after)
    title, first, *rest = after.cells
    assert rest == before.cells[1:]
    assert title.source.startswith(before.cells[0].source.splitlines()[0])
    assert f"github/me/course/blob/main/notebooks/{NAME}" in title.source
    assert "https://github.com/me/course" in first.source
    prepare(path, "you/fork")
    assert "me/course" not in path.read_text(encoding="utf-8")


@pytest.mark.parametrize("there", [True, False])
def test_first_cell_fetches_and_installs_on_a_hosted_machine(tmp_path, there):
    """Run again it fetches nothing; elsewhere it does nothing at all."""
    variables = {"PATH": "", "SYSTEMROOT": ""}
    done = subprocess.run(
        [sys.executable, "-c", f"{SPY}{CELL}\n{CELL}"],
        cwd=tmp_path,
        env=variables | ({"COLAB_RELEASE_TAG": "1"} if there else {}),
        capture_output=True,
        text=True,
        check=True,
    )
    fetch = ["git", "clone", tmp_path.name]
    install = [sys.executable, "-m", "notebooks"]
    calls = [json.loads(line) for line in done.stdout.splitlines()]
    assert calls == ([fetch, install, install] if there else [])
    assert there or not list(tmp_path.iterdir())


def test_install_removes_a_torchvision_and_installs_the_pins(tmp_path):
    """As on Colab, where one is for another torch; pip is stood in for."""
    (tmp_path / "pip").mkdir()
    (tmp_path / "pip" / "__init__.py").write_text("")
    (tmp_path / "pip" / "__main__.py").write_text(PIP)
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
    gone, first, second = (json.loads(line) for line in text.splitlines())
    assert gone == ["uninstall", "-q", "-y", "torchvision"]
    names = {item.split("==")[0] for item in first if "==" in item}
    assert {"torch", "transformers", "trl"} <= names
    assert not names & {"jupyterlab", "ipykernel", "pytest", "unsloth"}
    assert "--no-deps" in second
    assert {"unsloth", "unsloth_zoo"} == {
        item.split("==")[0] for item in second if "==" in item
    }


@pytest.mark.parametrize(
    "argv", [[], ["--repository", "https://github.com/me/course"]]
)
def test_main_wants_owner_and_name(argv):
    with pytest.raises(SystemExit):
        hosted.main(argv)
