"""Links and first cell for Colab and Kaggle: written, renewed, harmless."""

import json
import shutil
import subprocess
import sys

import nbformat
import pytest

from helpers.cli import hosted
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


def test_prepare_keeps_the_rest_and_renews(tmp_path):
    path = shutil.copy(NOTEBOOKS / NAME, tmp_path / NAME)
    before = nbformat.read(path, as_version=4)
    prepare(path, "me/course")
    once = path.read_text(encoding="utf-8")
    prepare(path, "me/course")
    assert path.read_text(encoding="utf-8") == once
    after = nbformat.read(path, as_version=4)
    nbformat.validate(after)
    title, links, first, *rest = after.cells
    assert [title, *rest] == before.cells
    assert f"github/me/course/blob/main/notebooks/{NAME}" in links.source
    assert "https://github.com/me/course" in first.source
    prepare(path, "you/fork")
    assert "me/course" not in path.read_text(encoding="utf-8")


@pytest.mark.parametrize("there", [True, False])
def test_first_cell_fetches_and_installs_on_a_hosted_machine(tmp_path, there):
    """Run again it fetches nothing; elsewhere it does nothing at all."""
    variables = {"PATH": "", "SYSTEMROOT": ""}
    variables |= {"COLAB_RELEASE_TAG": "1"} if there else {}
    command = [sys.executable, "-c", f"{SPY}{CELL}\n{CELL}"]
    printed = subprocess.check_output(command, cwd=tmp_path, env=variables)
    fetch = ["git", "clone", tmp_path.name]
    install = [sys.executable, "-m", "notebooks"]
    calls = [json.loads(line) for line in printed.splitlines()]
    assert calls == ([fetch, install, install] if there else [])
    assert there or not list(tmp_path.iterdir())


def test_install_removes_a_torchvision_and_installs_the_pins(monkeypatch):
    """As on Colab, where one is for another torch; pip is stood in for."""
    calls: list[list[str]] = []
    monkeypatch.setattr(
        hosted.subprocess, "run", lambda words, check: calls.append(words[3:])
    )
    assert hosted.main(["--install"]) == 0
    gone, first, second = calls
    assert gone == ["uninstall", "-q", "-y", "torchvision"]
    names = {item.split("==")[0] for item in first if "==" in item}
    assert {"torch", "transformers", "trl"} <= names
    assert not names & {"jupyterlab", "ipykernel", "pytest", "unsloth"}
    alone = {item.split("==")[0] for item in second if "==" in item}
    assert alone == {"unsloth", "unsloth_zoo"} and "--no-deps" in second


def test_main_wants_owner_and_name():
    with pytest.raises(SystemExit):
        hosted.main(["--repository", "https://github.com/me/course"])
