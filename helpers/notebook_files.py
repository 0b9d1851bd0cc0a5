"""Cleaning, writing and rendering executed notebooks."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
from nbformat import NotebookNode

from helpers.files import write_atomic

WIDGET = "application/vnd.jupyter.widget-view+json"
CELL_FILE = re.compile(r"[^\s\"'(]*ipykernel_\d+[/\\]+\d+\.py")


def clean_paths(
    text: str, *, repository: Path, home: Path | None = None
) -> str:
    """Replace the course's folder by "." and the home folder by "~".

    Both kinds of slashes and the doubled backslashes of a Windows repr are
    found; a longer name that merely begins alike is left as it is.
    """
    text = CELL_FILE.sub("<cell>", text)
    for folder, short in ((repository, "."), (home or Path.home(), "~")):
        if folder == Path(folder.anchor):
            continue  # "/" is nobody's private folder
        spelled = (
            str(folder).replace("\\", "\\\\"),
            str(folder),
            folder.as_posix(),
        )
        for name in spelled:
            pattern = rf"(?<![\w.~-]){re.escape(name)}(?![\w-]|\.\w)"
            text = re.sub(pattern, short, text)
    return text


def clean_notebook(
    notebook: NotebookNode, *, repository: Path, home: Path | None = None
) -> None:
    """Drop, in place, what differs from run to run or names this machine.

    Timings, widget states and widget views go (a widget's static picture
    stays), and private folders are shortened in every text output.
    """
    notebook.metadata.pop("widgets", None)
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        if cell.cell_type != "code":
            continue
        cell.outputs = [
            output
            for output in cell.outputs
            if WIDGET not in output.get("data", {})
        ]
        for output in cell.outputs:
            for holder, key in _texts(output):
                holder[key] = _clean(
                    holder[key], repository=repository, home=home
                )


def save_notebook(notebook: NotebookNode, path: Path) -> None:
    """Write a notebook so that a kill leaves the old file or the new one.

    Raises OSError with a cure when it cannot be written.
    """
    text = nbformat.writes(notebook)
    write_atomic(path, text if text.endswith("\n") else text + "\n")


def save_html(notebook: NotebookNode, path: Path, *, title: str) -> None:
    """Write the page that a browser shows of an executed notebook.

    Raises OSError with a cure when it cannot be written.
    """
    from nbconvert import HTMLExporter

    resources = {"metadata": {"name": title}}
    page, _ = HTMLExporter().from_notebook_node(notebook, resources=resources)
    write_atomic(path, page)


def _texts(output: NotebookNode) -> Iterator[tuple[Any, str]]:
    """Yield (holder, key) of every text in an output."""
    for key in ("text", "traceback", "evalue"):
        if key in output:
            yield output, key
    data = output.get("data", {})
    for kind in data:
        if kind.startswith("text/") or kind == "image/svg+xml":
            yield data, kind


def _clean(value: Any, *, repository: Path, home: Path | None) -> Any:
    if isinstance(value, list):
        return [_clean(v, repository=repository, home=home) for v in value]
    return clean_paths(value, repository=repository, home=home)
