"""Hygiene of every notebook: structure, size, outputs, links, order.

What a notebook does is tested by nbval; this reads the stored file only.
"""

from __future__ import annotations

import re
import statistics
from pathlib import Path
from typing import Any

import nbformat
import pytest

NOTEBOOKS = Path(__file__).resolve().parents[1] / "notebooks"
MAX_BYTES, MAX_LINES, MAX_MEDIAN, MAX_COLUMNS = 500_000, 40, 8, 79

# A path of somebody's machine; not the end of a URL or of a relative path.
ABSOLUTE = re.compile(
    r"(?<![\w.~/-])/(?:home|root|work|tmp|Users|mnt|var|opt)/[\w.-]"
    r"|\b[A-Za-z]:\\{1,2}Users\b"
)
LINK = re.compile(r"\]\(\s*<?([^)\s>]+)>?[^)]*\)|(?:href|src)=\"([^\"]+)\"")
TEXT_TYPES = ("text/plain", "text/html", "text/markdown", "text/latex")


def hygiene(notebook: Any, *, size: int, folder: Path, lesson: bool) -> list:
    """Every fault of a notebook, one sentence each; [] for a clean one.

    size: bytes of the file. folder: where its links start. lesson: False for
    the worked solutions, which teach nothing new and ask for nothing.
    """
    prose = _texts(notebook, "markdown")
    code = _texts(notebook, "code")
    return [
        *_structure_faults(prose),
        *(_lesson_faults(prose) if lesson else []),
        *_size_faults(code, size),
        *_execution_faults(notebook),
        *_path_faults(notebook),
        *_link_faults(prose, folder),
    ]


def _texts(notebook: Any, kind: str) -> list[str]:
    return [cell.source for cell in notebook.cells if cell.cell_type == kind]


def _structure_faults(prose: list[str]) -> list[str]:
    shown = [re.sub(r"```.*?```", "", text, flags=re.DOTALL) for text in prose]
    titles = re.findall(r"^# \S", "\n".join(shown), flags=re.MULTILINE)
    if len(titles) != 1:
        return [f"{len(titles)} titles (#) instead of one"]
    first = shown[0].lstrip() if shown else ""
    return [] if first.startswith("# ") else ["the title is not on top"]


def _lesson_faults(prose: list[str]) -> list[str]:
    first, everything = prose[0] if prose else "", "\n".join(prose)
    table = re.search(r"^\|.*minutes.*\|\s*\n\|[\s:|-]+\|", first, re.M | re.I)
    promises = {
        "no table with the minutes in the first cell": bool(table),
        'no "You will be able to"': "You will be able to" in everything,
        'no "Key takeaways"': "Key takeaways" in everything,
        "fewer than three exercises or quiz questions (**Exercise)": (
            len(
                re.findall(r"\*\*(?:Exercise|Quiz|Question|\d+\.)", everything)
            )
            >= 3
        ),
    }
    return [fault for fault, kept in promises.items() if not kept]


def _size_faults(code: list[str], size: int) -> list[str]:
    lengths = [len(text.splitlines()) for text in code]
    lines = [line for text in code for line in text.splitlines()]
    longest = max(map(len, lines), default=0)
    faults = []
    if size >= MAX_BYTES:
        faults.append(f"{size} bytes, {MAX_BYTES} are allowed")
    if max(lengths, default=0) > MAX_LINES:
        faults.append(f"a code cell of {max(lengths)} lines")
    if lengths and statistics.median(lengths) > MAX_MEDIAN:
        faults.append(f"a median of {statistics.median(lengths)} lines a cell")
    if longest > MAX_COLUMNS:
        faults.append(f"a code line of {longest} columns")
    return faults


def _execution_faults(notebook: Any) -> list[str]:
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    counts = [cell.execution_count for cell in cells if cell.source.strip()]
    faults = []
    if not counts:
        faults.append("no code at all")
    if counts != list(range(1, len(counts) + 1)):
        faults.append("not executed from top to bottom in one go")
    errors = [
        output.ename
        for cell in cells
        for output in cell.outputs
        if output.output_type == "error"
    ]
    return faults + [f"a stored {error}" for error in errors]


def _path_faults(notebook: Any) -> list[str]:
    texts = [cell.source for cell in notebook.cells]
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            texts += [data[kind] for kind in TEXT_TYPES if kind in data]
            texts += [output.get("text", ""), *output.get("traceback", [])]
    found = [ABSOLUTE.search(text) for text in texts]
    return [f"an absolute path: {match[0]}..." for match in found if match]


def _link_faults(prose: list[str], folder: Path) -> list[str]:
    links = [
        one or two for text in prose for one, two in LINK.findall(text)
    ]  # fmt: skip
    faults = []
    for link in links:
        target = link.partition("#")[0]
        if not target or re.match(r"[a-z]+:", target):
            continue
        if target.startswith("/") or not (folder / target).exists():
            faults.append(f"a link to {link}, which is not there")
    return faults


def _stored() -> list[Path]:
    return sorted(
        path
        for path in NOTEBOOKS.rglob("*.ipynb")
        if ".ipynb_checkpoints" not in path.parts
    )


@pytest.mark.parametrize(
    "path", _stored(), ids=lambda path: str(path.relative_to(NOTEBOOKS))
)
def test_notebook_hygiene(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    faults = hygiene(
        notebook,
        size=path.stat().st_size,
        folder=path.parent,
        lesson="solutions" not in path.parts,
    )
    assert faults == []
