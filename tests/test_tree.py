"""The package stays small: what lies where, and who imports whom."""

import ast
import subprocess
import sys
from collections.abc import Iterable, Iterator
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

from helpers.profiles import ROOT

HELPERS = ROOT / "helpers"
CORE = sorted(HELPERS.glob("*.py"))
ALL = sorted(HELPERS.rglob("*.py"))
OUTSIDE = ("helpers.cli", "helpers.scale", "helpers.rebuild")
MOST_LINES_OF_A_FILE, MOST_PARAMETERS = 300, 8
# The aim was 9,500 lines of helpers, 10,500 with notebooks 07, 08 and 11; why
# it was raised five times (last: what a GPU needs), and what made room: see
# the history.
MOST_MODULES = 17  # beside __init__ and __main__
MOST_LINES = {"core": 4000, "helpers": 15450}
PAIR_OF_HEADS = {"chunked_kd_loss"}  # two models' states, heads, kd_loss's own


def lines(path: Path) -> int:
    return len(path.read_text(encoding="utf-8").splitlines())


def module(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts).removesuffix(".__init__")


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def imported(nodes: Iterable[ast.AST]) -> set[str]:
    """The modules, and the names in them, that these statements import."""
    names = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, "write imports in full"
            names |= {node.module}
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def at_the_top(body: list[ast.stmt]) -> Iterator[ast.AST]:
    """What runs when a module is imported; not what its functions do."""
    for node in body:
        later = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        if not later and "TYPE_CHECKING" not in ast.unparse(
            getattr(node, "test", ast.Pass())
        ):
            yield node
            for name in ("body", "orelse", "finalbody"):
                yield from at_the_top(getattr(node, name, []))


def test_helpers_are_small():
    modules = [path for path in CORE if not path.stem.startswith("__")]
    assert len(modules) <= MOST_MODULES, modules
    assert sum(map(lines, CORE)) < MOST_LINES["core"]
    assert sum(map(lines, ALL)) < MOST_LINES["helpers"]


@pytest.mark.parametrize("path", CORE, ids=lambda path: path.stem)
def test_core_module_is_short_and_imports_nothing_from_outside(path):
    """Neither at its top nor inside a function; and it parses no options.

    Nor does a function of it take more than eight parameters.
    """
    assert lines(path) <= MOST_LINES_OF_A_FILE
    names = imported(ast.walk(tree(path)))
    assert "argparse" not in names
    if path.name != "__main__.py":
        assert not [name for name in names if name.startswith(OUTSIDE)]
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            given = node.args
            taken = [*given.posonlyargs, *given.args, *given.kwonlyargs]
            few = len(taken) <= MOST_PARAMETERS
            assert few or node.name in PAIR_OF_HEADS, node.name


def test_no_import_circle():
    known = set(map(module, ALL))
    needed = {
        module(path): imported(at_the_top(tree(path).body))
        & known - {module(path)}
        for path in ALL
    }
    TopologicalSorter(needed).prepare()  # raises CycleError


TIMED = """
import importlib, sys, time
import torch, transformers, accelerate, tqdm.auto
for name in sys.argv[1:]:
    started = time.process_time()  # other programs do not count
    importlib.import_module(name)
    print(name, time.process_time() - started)
print([n for n in ("peft", "trl", "datasets", "unsloth") if n in sys.modules])
"""


@pytest.mark.slow
def test_core_modules_import_fast_and_nothing_heavy():
    """Each under 0.3 s beyond torch, transformers and those before it."""
    # A subclass of TRL's needs TRL, and Unsloth before it.
    skip = {"__init__", "__main__", "trainer", "distill", "on_policy"}
    names = [module(path) for path in CORE if path.stem not in skip]
    command = [sys.executable, "-c", TIMED, *names]
    printed = subprocess.check_output(command, cwd=ROOT, text=True)
    *times, heavy = printed.splitlines()[-len(names) - 1 :]
    assert heavy == "[]"
    slow = [line for line in times if float(line.split()[1]) >= 0.3]
    assert not slow
