"""Hygiene of every notebook: structure, size, outputs, links, order.

What a notebook does is tested by nbval; this reads the stored file only.
"""

import re
import statistics
from functools import cache
from pathlib import Path
from typing import Any

import nbformat
import pytest

NOTEBOOKS = Path(__file__).resolve().parents[1] / "notebooks"
STORED = sorted(NOTEBOOKS.glob("*.ipynb"))
STORED += sorted(NOTEBOOKS.glob("solutions/*.ipynb"))
MAX_BYTES, MAX_LINES, MAX_MEDIAN, MAX_COLUMNS = 500_000, 40, 6, 79

# A path of somebody's machine; not the end of a URL or of a relative path.
ABSOLUTE = re.compile(
    r"(?<![\w.~/-])/(?:home|root|work|tmp|Users|mnt|var|opt)/[\w.-]"
    r"|\b[A-Za-z]:\\{1,2}Users\b"
)
LINK = re.compile(r"\]\(\s*<?([^)\s>]+)>?[^)]*\)|(?:href|src)=\"([^\"]+)\"")
TEXT_TYPES = ("text/plain", "text/html", "text/markdown", "text/latex")
each = pytest.mark.parametrize(
    "path", STORED, ids=lambda path: str(path.relative_to(NOTEBOOKS))
)


@cache
def read(path: Path) -> Any:
    return nbformat.read(path, as_version=4)


def dead_links(text: str, folder: Path, *others: str) -> list[str]:
    """What is linked in this text, or is in others, and not in the folder."""
    links = [one or two for one, two in LINK.findall(text)] + [*others]
    targets = {link.partition("#")[0] for link in links} - {""}
    local = [link for link in targets if not re.match(r"[a-z]+:", link)]
    return [x for x in local if x[0] == "/" or not (folder / x).exists()]


def texts(path: Path, kind: str) -> list[str]:
    cells = read(path).cells
    return [cell.source for cell in cells if cell.cell_type == kind]


@each
def test_notebook_has_one_title_and_links_that_lead_somewhere(path):
    nbformat.validate(read(path))
    prose = texts(path, "markdown")
    shown = re.sub(r"```.*?```", "", "\n".join(prose), flags=re.DOTALL)
    assert len(re.findall(r"^# \S", shown, flags=re.MULTILINE)) == 1
    assert prose[0].startswith("# ")
    assert dead_links("\n".join(prose), path.parent) == []


@each
def test_notebook_is_small_and_its_cells_are_short(path):
    assert path.stat().st_size < MAX_BYTES
    cells = [text.splitlines() for text in texts(path, "code")]
    lengths = [len(lines) for lines in cells]
    assert max(lengths) <= MAX_LINES
    assert statistics.median(lengths) <= MAX_MEDIAN
    assert max(len(line) for lines in cells for line in lines) <= MAX_COLUMNS


@each
def test_notebook_was_executed_in_one_go_without_error_or_private_path(path):
    cells = read(path).cells
    code = [cell for cell in cells if cell.cell_type == "code"]
    counts = [cell.execution_count for cell in code if cell.source.strip()]
    assert counts == list(range(1, len(counts) + 1)) != []
    outputs = [output for cell in code for output in cell.outputs]
    assert "error" not in [output.output_type for output in outputs]
    shown = [cell.source for cell in cells]
    for output in outputs:
        data = output.get("data", {})
        shown += [output.get("text", "")]
        shown += [data[kind] for kind in TEXT_TYPES if kind in data]
    assert [found[0] for found in map(ABSOLUTE.search, shown) if found] == []
