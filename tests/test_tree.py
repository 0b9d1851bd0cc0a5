"""The package stays small: what lies where, and who imports whom."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
HELPERS = ROOT / "helpers"
CORE = sorted(HELPERS.glob("*.py"))
ALL = sorted(HELPERS.rglob("*.py"))
OUTSIDE = ("helpers.cli", "helpers.scale", "helpers.rebuild")
MOST_LINES_OF_A_FILE, MOST_PARAMETERS = 300, 8
# The aim is 17 modules, 4,000 and 9,500 lines. These only ever go down: first
# when rebuild/composed takes the place of the old mini lab beside it.
MOST_MODULES = 18
MOST_LINES = {"core": 4_650, "helpers": 13_500}
PAIR_OF_HEADS = {"chunked_kd_loss"}  # two models' states, heads, kd_loss's own


def lines(path: Path) -> int:
    return len(path.read_text(encoding="utf-8").splitlines())


def module(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts).removesuffix(".__init__")


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def imported(node: ast.AST, path: Path) -> Iterator[str]:
    """Modules of helpers that an import statement names."""
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        base = node.module or ""
        if node.level:  # from . import x
            package = module(path).split(".")
            if path.name != "__init__.py":
                package = package[:-1]
            package = package[: len(package) - node.level + 1]
            base = ".".join([*package, *filter(None, [base])])
        yield base
        yield from (f"{base}.{alias.name}" for alias in node.names)


def imports(path: Path, nodes: Iterator[ast.AST]) -> set[str]:
    known = {module(other) for other in ALL}
    names = {name for node in nodes for name in imported(node, path)}
    return (names & known) - {module(path)}


def at_the_top(path: Path) -> set[str]:
    """What importing a module imports; not what its functions do later."""

    def statements(body: list[ast.stmt]) -> Iterator[ast.AST]:
        for node in body:
            later = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
            typing = isinstance(node, ast.If) and "TYPE_CHECKING" in (
                ast.unparse(node.test)
            )
            if not later and not typing:
                yield node
                for name in ("body", "orelse", "finalbody"):
                    yield from statements(getattr(node, name, []))

    return imports(path, statements(tree(path).body))


def test_opening_helpers_shows_few_modules():
    assert len(CORE) <= MOST_MODULES, [path.name for path in CORE]


def test_core_is_small():
    assert sum(map(lines, CORE)) < MOST_LINES["core"]


def test_helpers_are_small():
    assert sum(map(lines, ALL)) < MOST_LINES["helpers"]


@pytest.mark.parametrize("path", CORE, ids=lambda path: path.stem)
def test_core_module_has_no_more_than_300_lines(path):
    assert lines(path) <= MOST_LINES_OF_A_FILE


@pytest.mark.parametrize(
    "path",
    [path for path in CORE if path.name != "__main__.py"],
    ids=lambda path: path.stem,
)
def test_core_module_imports_nothing_from_outside(path):
    """Neither at its top nor inside a function; and it parses no options."""
    everything = imports(path, ast.walk(tree(path)))
    assert not [name for name in everything if name.startswith(OUTSIDE)]
    names = {
        name for node in ast.walk(tree(path)) for name in imported(node, path)
    }
    assert "argparse" not in names


@pytest.mark.parametrize("path", CORE, ids=lambda path: path.stem)
def test_core_function_takes_eight_parameters_at_most(path):
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            if node.name in PAIR_OF_HEADS:
                continue
            given = node.args
            names = [*given.posonlyargs, *given.args, *given.kwonlyargs]
            assert len(names) <= MOST_PARAMETERS, node.name


def test_no_import_circle():
    waiting = {module(path): at_the_top(path) for path in ALL}
    while free := {n for n, needed in waiting.items() if not needed}:
        waiting = {
            name: needed - free
            for name, needed in waiting.items()
            if name not in free
        }
    assert not waiting


TIMED = """
import importlib, sys, time
import torch, transformers, accelerate, tqdm.auto
for name in sys.argv[1:]:
    started = time.perf_counter()
    importlib.import_module(name)
    print(name, time.perf_counter() - started)
print([n for n in ("peft", "trl", "datasets", "unsloth") if n in sys.modules])
"""


@pytest.mark.slow
def test_core_modules_import_fast_and_nothing_heavy():
    """Each under 0.3 s beyond torch, transformers and those before it."""
    names = [
        module(path)
        for path in CORE
        if not path.name.startswith("__")
        # A subclass of TRL's needs TRL, and Unsloth before it.
        and path.stem not in ("trainer", "distill")
    ]
    done = subprocess.run(
        [sys.executable, "-c", TIMED, *names],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    *times, heavy = done.stdout.splitlines()[-len(names) - 1 :]
    assert heavy == "[]"
    slow = [line for line in times if float(line.split()[1]) >= 0.3]
    assert not slow
