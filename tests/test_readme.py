"""README.md says nothing that is not real: commands, links, results."""

import contextlib
import io
import re
import shlex
from functools import cache
from pathlib import Path

import nbformat
from test_notebooks import dead_links

from helpers.cli.commands import COMMANDS
from helpers.rebuild.arms import budgets_markdown, read_groups
from helpers.rebuild.half_results import halves_markdown, overview, read_halves
from helpers.results import table_markdown

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text("utf-8")
FOLDERS = ("notebooks", "helpers", "data", "tests", ".ci", ".github")
COMMAND = re.compile(r"(?:python3|python|py) -m helpers +([^`\n|;&#]*)")
OPTION = re.compile(r"(?<!\S)\[?(--?[a-zA-Z][\w-]*)")


@cache
def help_of(name: str) -> str:
    """What `python3 -m helpers NAME --help` prints."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.suppress(SystemExit):
        COMMANDS[name].main(["--help"])
    return printed.getvalue()


def test_readme_commands_and_options_exist():
    calls = [
        shlex.split(found[1].replace("...", ""))
        for found in COMMAND.finditer(README)
    ]
    assert {"run", "test", "lab"} <= {words[0] for words in calls if words}
    for name, *words in filter(None, calls):
        options = set(OPTION.findall(" ".join(words)))
        assert name in COMMANDS, name
        known = set(re.findall(r"(?<!\S)--?[\w-]+", help_of(name)))
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
