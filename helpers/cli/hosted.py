"""Colab and Kaggle: links and a first cell, once the course has an address.

`python3 -m helpers hosted --repository OWNER/NAME` writes them into every
notebook; on a hosted machine the first cell fetches the course from there
and calls `hosted --install`. Standard library only.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path

from helpers.cli import environment
from helpers.cli.commands import command_parser
from helpers.cli.environment import REPOSITORY
from helpers.profiles import write_atomic

NOTEBOOKS = REPOSITORY / "notebooks"
TAG = "hosted"
BEGIN, END = "<!-- hosted:start -->", "<!-- hosted:end -->"
# The notebook server of a hosted machine is its own affair.
THEIRS = {
    "ipykernel", "ipywidgets", "jupyterlab", "nbclient", "nbconvert",
    "nbformat", "nbval", "playwright", "pytest", "ruff", "setuptools",
}  # fmt: skip
CELL = """\
# Colab and Kaggle: fetch the course and install its pins. Nothing elsewhere.
import os
import subprocess
import sys

if {{"COLAB_RELEASE_TAG", "KAGGLE_KERNEL_RUN_TYPE"}} & set(os.environ):
    if not os.path.isdir("../helpers"):  # the first time
        address = "https://github.com/{repository}"
        subprocess.run(["git", "clone", address, "course"], check=True)
        os.chdir("course/notebooks")
    sys.path.insert(0, os.path.abspath(".."))
    install = [sys.executable, "-m", "helpers", "hosted", "--install"]
    subprocess.run(install, cwd="..", check=True)"""


def pip_commands(pins: list[str], python: str) -> list[list[str]]:
    """The pip calls that put the pins into a running Python's environment.

    A torchvision that was built for another torch goes: with it there,
    Unsloth and transformers raise at their import.
    """
    pip, names = [python, "-m", "pip"], {p: p.split("==")[0] for p in pins}
    unsloth = [p for p in pins if names[p].startswith("unsloth")]
    wanted = [p for p in pins if names[p] not in THEIRS and p not in unsloth]
    install = [*pip, "install", "-q"]
    commands = [install + wanted, [*install, "--no-deps", *unsloth]]
    try:
        needs = requires("torchvision") or []
    except PackageNotFoundError:
        return commands
    torch = next(p for p in pins if names[p] == "torch")
    if torch not in {re.split(r"[+;]", n)[0].strip() for n in needs}:
        commands.insert(0, [*pip, "uninstall", "-q", "-y", "torchvision"])
    return commands


def links(repository: str, name: str) -> str:
    """A line of links that open a notebook on Colab and on Kaggle."""
    page = f"{repository}/blob/main/notebooks/{name}"
    colab = f"https://colab.research.google.com/github/{page}"
    kaggle = (
        f"https://kaggle.com/kernels/welcome?src=https://github.com/{page}"
    )
    return (
        f"{BEGIN}Open in [Colab]({colab}) or on [Kaggle]({kaggle}); choose a "
        f"machine with a GPU for `full`.{END}"
    )


def prepare(path: Path, repository: str) -> None:
    """Write, or renew, the links and the first cell of one notebook."""
    notebook = json.loads(path.read_text(encoding="utf-8"))
    cells = notebook["cells"]
    title = "".join(cells[0]["source"])
    title = re.sub(rf"\n\n{BEGIN}.*?{END}", "", title)
    heading, _, rest = title.partition("\n")
    title = f"{heading}\n\n{links(repository, path.name)}\n{rest}"
    cells[0]["source"] = title.splitlines(keepends=True)
    source = CELL.format(repository=repository).splitlines(keepends=True)
    old = [c for c in cells if TAG in c["metadata"].get("tags", [])]
    cell = old[0] if old else {"cell_type": "code", "id": TAG}
    cell |= {"metadata": {"tags": [TAG]}, "source": source}
    cell |= {"execution_count": None, "outputs": []}
    if not old:
        cells.insert(1, cell)
    text = json.dumps(notebook, indent=1, ensure_ascii=False)
    write_atomic(path, text + "\n")


def main(argv: list[str]) -> int:
    """`python3 -m helpers hosted`."""
    parser = command_parser("hosted", __doc__)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--repository", help="OWNER/NAME on GitHub")
    what.add_argument(
        "--install", action="store_true", help="install the pins right here"
    )
    options = parser.parse_args(argv)
    if options.install:
        pins = environment.read_pip_list(REPOSITORY / "environment.yml")
        for command in pip_commands(pins, sys.executable):
            subprocess.run(command, check=True)
        return 0
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", options.repository):
        parser.error("--repository is OWNER/NAME, without https://")
    paths = sorted(NOTEBOOKS.glob("[0-9A]*.ipynb"))
    for path in paths:
        prepare(path, options.repository)
    print(f"{len(paths)} notebooks prepared. Now refresh their outputs:")
    print("python3 -m helpers run --in-place")
    return 0
