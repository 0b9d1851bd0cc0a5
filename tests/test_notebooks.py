"""Hygiene of every notebook: structure, size, outputs, links, order.

What a notebook does is tested by nbval; this reads the stored file only.
"""

from __future__ import annotations

import copy
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


# --- the check itself -------------------------------------------------------

GOOD = """# Title

A promise.

| minutes | hardware |
|---|---|
| 5 / 60 | any |

**You will be able to** test. [A file](here.md#part), [a site](https://x.org)
"""
END = "> **Exercise 1.** a\n\n**Exercise 2.**\n\n**1. A question?**\n\n" + (
    "## Key takeaways\n\n```\n# no title, but a comment\n```"
)


@pytest.fixture
def good(tmp_path: Path) -> Any:
    (tmp_path / "here.md").write_text("here", "utf-8")
    notebook = nbformat.v4.new_notebook()
    output = nbformat.v4.new_output("stream", text="see https://x.org/tmp/y")
    notebook.cells = [
        nbformat.v4.new_markdown_cell(GOOD),
        nbformat.v4.new_code_cell("1 + 1", execution_count=1),
        nbformat.v4.new_code_cell(
            "print(2)\n" * 8, execution_count=2, outputs=[output]
        ),
        nbformat.v4.new_markdown_cell(END),
        nbformat.v4.new_code_cell("check(...)", execution_count=3),
    ]
    return notebook


def _faults(notebook: Any, folder: Path, **changes: Any) -> list[str]:
    options = {"size": 1000, "folder": folder, "lesson": True} | changes
    return hygiene(notebook, **options)


def test_hygiene_good_notebook(good: Any, tmp_path: Path) -> None:
    assert _faults(good, tmp_path) == []


def _set(place: int, **values: Any) -> Any:
    return lambda notebook: notebook.cells[place].update(values)


def _output(kind: str, **values: Any) -> Any:
    output = nbformat.v4.new_output(kind, **values)
    return lambda notebook: notebook.cells[1].outputs.append(output)


def _long_cells(notebook: Any) -> None:
    for place in (1, 2, 4):
        notebook.cells[place].source = "x = 1\n" * 9


BAD = [
    (_set(3, source=END + "\n# Second"), "2 titles (#) instead of one"),
    (_set(0, source="Hello\n\n" + GOOD), "the title is not on top"),
    (_set(0, source=GOOD.replace("minutes", "time")), "no table with the mi"),
    (_set(0, source=GOOD.replace("able", "sure")), 'no "You will be able to"'),
    (_set(3, source=END.replace("Key", "Some")), 'no "Key takeaways"'),
    (_set(3, source=END.replace("**1.", "**Note")), "fewer than three"),
    (_set(1, source="x = 1\n" * 41), "a code cell of 41 lines"),
    (_long_cells, "a median of 9 lines a cell"),
    (_set(1, source="x" * 80), "a code line of 80 columns"),
    (_set(1, execution_count=None), "not executed from top to bottom"),
    (_set(2, execution_count=7), "not executed from top to bottom"),
    (_set(1, source="open('/home/me/x')"), "an absolute path: /home/m"),
    (_set(1, source=r"open('C:\Users\me')"), r"an absolute path: C:\Users"),
    (_set(0, source=GOOD.replace("here.md", "gone.md")), "a link to gone.md"),
    (_set(0, source=GOOD.replace("here.md", "/here.md")), "a link to /here"),
    (_set(0, source=GOOD + '<img src="no.png">'), "a link to no.png"),
    (_output("error", ename="KeyError", evalue="", traceback=[]), "a stored"),
    (_output("stream", text="to /tmp/x"), "an absolute path: /tmp/x"),
    (_output("display_data", data={"text/html": "'/root/a'"}),
     "an absolute path: /root/a"),
]  # fmt: skip


@pytest.mark.parametrize(("spoil", "fault"), BAD)
def test_hygiene_names_the_fault(
    good: Any, tmp_path: Path, spoil: Any, fault: str
) -> None:
    bad = copy.deepcopy(good)
    spoil(bad)
    found = _faults(bad, tmp_path)
    assert len(found) == 1 and found[0].startswith(fault)


def test_hygiene_large_file(good: Any, tmp_path: Path) -> None:
    found = _faults(good, tmp_path, size=MAX_BYTES)
    assert found == ["500000 bytes, 500000 are allowed"]


def test_hygiene_of_solutions_asks_for_no_lesson(
    good: Any, tmp_path: Path
) -> None:
    good.cells[0].source = "# Solutions"
    good.cells[3].source = "One way to do it."
    assert _faults(good, tmp_path, lesson=False) == []
    assert len(_faults(good, tmp_path)) == 4


def test_hygiene_without_code(good: Any, tmp_path: Path) -> None:
    good.cells = [good.cells[0], good.cells[3]]
    assert _faults(good, tmp_path) == ["no code at all"]
