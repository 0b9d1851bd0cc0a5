"""README.md says nothing that is not real: commands, links, results."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

from helpers.cli.commands import COMMANDS
from helpers.results import table_markdown

ROOT = Path(__file__).resolve().parents[1]
README = ROOT / "README.md"
FOLDERS = ("notebooks", "helpers", "data", "tests", ".ci", ".github")
COMMAND = re.compile(r"(?:python3|python|py) -m helpers +([^`\n|;&#]*)")
LINK = re.compile(r"\]\(\s*<?([^)\s>]+)>?[^)]*\)|(?:href|src)=\"([^\"]+)\"")
START, END = "<!-- results:start -->", "<!-- results:end -->"

needs_readme = pytest.mark.skipif(
    not README.exists(), reason="README.md is not written yet"
)


def command_faults(text: str) -> list[str]:
    """Every `python3 -m helpers ...` in a text that would not run."""
    faults = []
    for match in COMMAND.finditer(text):
        words = shlex.split(match[1].replace("...", ""))
        name = words[0] if words else "--help"
        if name in ("-h", "--help"):
            continue
        if name not in COMMANDS:
            faults.append(f"there is no command {name}")
            continue
        faults += [
            f"{name} has no option {option}"
            for option in re.findall(
                r"(?<!\S)\[?(--?[a-zA-Z][\w-]*)", match[1]
            )
            if not re.search(rf"{option}(?![\w-])", _help(name))
        ]
    return faults


def link_faults(text: str, folder: Path) -> list[str]:
    """Every local link, image or `path` in a text that is not there."""
    links = [one or two for one, two in LINK.findall(text)]
    quoted = re.findall(r"`([\w.][\w./-]*)`", text)
    links += [path for path in quoted if path.split("/")[0] in FOLDERS]
    return [
        f"{link} is not there"
        for link in links
        if not re.match(r"[a-z]+:|#", link)
        and not link.startswith("data/runs")  # written at run time
        and not (folder / link.partition("#")[0]).exists()
    ]


def anchor_faults(text: str) -> list[str]:
    """Every link to a heading of the same text that has no such heading."""
    headings = re.findall(r"^#+ +(.*)$", text, flags=re.MULTILINE)
    anchors = {
        re.sub(r"[^\w -]", "", heading).strip().lower().replace(" ", "-")
        for heading in headings
    }
    wanted = re.findall(r"\]\(#([^)]+)\)", text)
    return [f"no heading #{name}" for name in wanted if name not in anchors]


@cache
def _help(name: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "helpers", name, "--help"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=300,
    )
    assert done.returncode == 0, f"{name} --help fails: {done.stderr[-500:]}"
    return done.stdout


@needs_readme
def test_readme_commands_exist() -> None:
    text = README.read_text("utf-8")
    assert "python3 -m helpers run" in text
    assert "python3 -m helpers test" in text
    assert command_faults(text) == []


@needs_readme
def test_readme_links_and_paths_exist() -> None:
    text = README.read_text("utf-8")
    assert link_faults(text, ROOT) + anchor_faults(text) == []


@needs_readme
def test_readme_table_is_the_measured_one() -> None:
    text = README.read_text("utf-8")
    assert text.count(START) == text.count(END) == 1
    shown = text.partition(START)[2].partition(END)[0].strip()
    expected = table_markdown(ROOT / "data" / "results")
    assert shown == expected, (
        "the table is out of date: python3 -m helpers results --readme"
    )


# --- the checks themselves --------------------------------------------------


@pytest.mark.parametrize(
    ("text", "faults"),
    [
        ("`python3 -m helpers run --profile full`", []),
        ("    python3 -m helpers evaluate --seed 3  # twice", []),
        ("python3 -m helpers [--help]", ["there is no command [--help]"]),
        ("`python3 -m helpers` lists the commands", []),
        ("python3 -m helpers rum", ["there is no command rum"]),
        ("python3 -m helpers run --sped", ["run has no option --sped"]),
        ("python3 -m helpers run [--pro X]", ["run has no option --pro"]),
    ],
)
def test_command_faults(text: str, faults: list[str]) -> None:
    assert command_faults(text) == faults


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("[here](helpers) ![it](helpers/answers.py#L3)", 0),
        ("[web](https://x.org) [top](#title) `data/runs/x`", 0),
        ("`helpers/answers.py` and `torch/nn`", 0),
        ("[here](nowhere.md)", 1),
        ("`helpers/nothing.py`", 1),
        ('<img src="data/no.png">', 1),
    ],
)
def test_link_faults(text: str, count: int) -> None:
    assert len(link_faults(text, ROOT)) == count


def test_anchor_faults() -> None:
    text = "# Two words, here\n[a](#two-words-here) [b](#three)"
    assert anchor_faults(text) == ["no heading #three"]
