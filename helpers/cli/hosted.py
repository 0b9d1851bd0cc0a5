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
from pathlib import Path

from helpers.cli.commands import command_parser
from helpers.cli.environment import REPOSITORY, read_pip_list
from helpers.files.disk import write_atomic

NOTEBOOKS = REPOSITORY / "notebooks"
LINKS, FETCH = "hosted-links", "hosted"  # the ids of the two cells
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
    if not os.path.isdir("../helpers"):  # the first time, or a restart
        address = "https://github.com/{repository}"
        if not os.path.isdir("course"):
            subprocess.run(["git", "clone", address, "course"], check=True)
        os.chdir("course/notebooks")
    # "laptop" or "full" for a GPU: before anything of helpers is imported.
    os.environ.setdefault("DISTILL_PROFILE", "mini")
    sys.path.insert(0, os.path.abspath(".."))
    install = [sys.executable, "-m", "helpers", "hosted", "--install"]
    subprocess.run(install, cwd="..", check=True)
    if "numpy" in sys.modules:
        print("Restart the kernel once, so that the pins are imported.")"""


def install(pins: list[str]) -> None:
    """Put the pins into this Python, whatever a hosted machine brought.

    A torchvision goes: one that was built for another torch makes Unsloth and
    transformers raise at their import, and nothing here needs any.
    """
    names = {pin: pin.split("==")[0] for pin in pins}
    alone = [pin for pin in pins if names[pin].startswith("unsloth")]
    rest = [p for p in pins if names[p] not in THEIRS and p not in alone]
    for command in (
        ["uninstall", "-q", "-y", "torchvision"],
        ["install", "-q", *rest],
        ["install", "-q", "--no-deps", *alone],
    ):
        subprocess.run([sys.executable, "-m", "pip", *command], check=True)


def prepare(path: Path, repository: str) -> None:
    """Write, or renew, the cell with the links and the one that fetches."""
    page = f"{repository}/blob/main/notebooks/{path.name}"
    colab = f"https://colab.research.google.com/github/{page}"
    kaggle = "https://kaggle.com/kernels/welcome?src=https://github.com/"
    links = (
        f"Open in [Colab]({colab}) or on [Kaggle]({kaggle}{page}); choose a "
        "machine with a GPU for `full`, and name it in the next cell."
    )
    source = CELL.format(repository=repository).splitlines(keepends=True)
    code = {"cell_type": "code", "execution_count": None, "outputs": []}
    cells = [
        {"cell_type": "markdown", "id": LINKS, "source": [links]},
        {**code, "id": FETCH, "source": source},
    ]
    cells = [{**cell, "metadata": {"tags": [FETCH]}} for cell in cells]
    notebook = json.loads(path.read_text(encoding="utf-8"))
    others = [c for c in notebook["cells"] if c["id"] not in (LINKS, FETCH)]
    notebook["cells"] = [others[0], *cells, *others[1:]]
    text = json.dumps(notebook, indent=1, ensure_ascii=False)
    write_atomic(path, text + "\n")


def main(argv: list[str]) -> int:
    """Prepare the notebooks, or the machine that this runs on."""
    parser = command_parser("hosted", __doc__)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--repository", help="OWNER/NAME on GitHub")
    here = "install the pins right here"
    what.add_argument("--install", action="store_true", help=here)
    options = parser.parse_args(argv)
    if options.install:
        install(read_pip_list())
        return 0
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", options.repository):
        parser.error("--repository is OWNER/NAME, without https://")
    for path in sorted(NOTEBOOKS.glob("[0-9A]*.ipynb")):
        prepare(path, options.repository)
        print(path.name, "is prepared.")
    print("Now refresh the outputs: python3 -m helpers run --in-place")
    return 0
