"""Notebooks and README.md: structure, size, outputs; what they say is real.

What a notebook does is tested by nbval; this reads the stored file only.
"""

import contextlib
import re
import shlex
import statistics
from functools import cache
from pathlib import Path
from typing import Any

import nbformat
import pytest

from helpers.cli.commands import COMMANDS
from helpers.profiles import ROOT
from helpers.rebuild.arms import budgets_markdown, read_groups
from helpers.rebuild.half_results import halves_markdown, overview, read_halves
from helpers.results import table_markdown

NOTEBOOKS = ROOT / "notebooks"
STORED = sorted(NOTEBOOKS.glob("*.ipynb"))
STORED += sorted(NOTEBOOKS.glob("solutions/*.ipynb"))
README = (ROOT / "README.md").read_text("utf-8")
FOLDERS = ("notebooks", "helpers", "data", "tests", ".ci", ".github")
COMMAND = re.compile(r"(?:python3|python|py) -m helpers +([^`\n|;&#]*)")
OPTION = re.compile(r"(?<!\S)\[?(--?[a-zA-Z][\w-]*)")
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


def test_readme_commands_and_options_exist(capsys):
    calls = [
        shlex.split(found[1].replace("...", ""))
        for found in COMMAND.finditer(README)
    ]
    assert {"run", "test", "lab"} <= {words[0] for words in calls if words}
    for name, *words in filter(None, calls):
        options = set(OPTION.findall(" ".join(words)))
        assert name in COMMANDS, name
        with contextlib.suppress(SystemExit):
            COMMANDS[name].main(["--help"])
        help_text = capsys.readouterr().out
        known = set(re.findall(r"(?<!\S)--?[\w-]+", help_text))
        assert options <= known, (name, options - known)


def test_readme_links_and_paths_exist():
    quoted = re.findall(r"`([\w.][\w./-]*)`", README)
    paths = [path for path in quoted if path.split("/")[0] in FOLDERS]
    missing = dead_links(README, ROOT, *paths)
    # what is written at run time
    assert [x for x in missing if not x.startswith("data/runs")] == []


def test_readme_tables_are_the_measured_ones():
    folder = ROOT / "data" / "results"
    groups = read_groups(folder / "kd")
    tables = {
        "results": table_markdown(folder),
        "kd": budgets_markdown(groups),
        "half": halves_markdown(overview(read_halves(folder / "half_gemma"))),
    }
    for name, table in tables.items():
        shown = README.partition(f"<!-- {name}:start -->")[2]
        shown = shown.partition(f"<!-- {name}:end -->")[0].strip()
        assert shown == table, "run: python3 -m helpers results --readme"


def test_readme_map_has_every_notebook_and_its_minutes():
    for path in (ROOT / "notebooks").glob("*.ipynb"):
        first = nbformat.read(path, as_version=4).cells[0].source
        minutes = re.search(r"(\d+) to read", first)[1]
        assert f"(notebooks/{path.name}) | {minutes} " in README
