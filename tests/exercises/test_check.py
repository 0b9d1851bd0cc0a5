"""What a learner reads, for every kind of answer; every shipped solution."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from importlib import import_module
from typing import Any

import nbformat
import pytest
import torch

from helpers.exercises import check, progress
from helpers.exercises.check import EXERCISES, UNTOUCHED, exercise
from helpers.profiles import ROOT

ONES = torch.ones(3)
NOTEBOOKS = ("00", "01", "02", "03", "04", "05", "06", "10")


@pytest.fixture
def said(capsys: pytest.CaptureFixture[str]) -> Iterator[Callable[..., str]]:
    """Register cases as 99.1, check an answer, return the line printed."""

    def run(answer: Any, *cases: tuple[Any, ...]) -> str:
        exercise("99.1", hint="think again")(lambda: cases)
        check("99.1", answer)
        return capsys.readouterr().out.rstrip("\n")

    yield run
    for name in [name for name in EXERCISES if name.startswith("99.")]:
        del EXERCISES[name]


def _double(x: Any) -> Any:
    return 2 * x


def _stub(*_: Any) -> Any:
    raise NotImplementedError


RIGHT = [
    (_double, (3, 6)),
    (_double, ((0.1,), 0.2)),
    (_double, ((torch.ones(2),), torch.full((2,), 2.0))),
    (_double, ((torch.tensor(3.0, requires_grad=True),), 6.0)),
    (_double, (("ab",), "abab")),
    (lambda x: (x, [x, 1], "a"), ((2,), (2, [2.0, 1], "a"))),
    (lambda x: {"a": x}, ((2,), {"a": 2})),
    (lambda x: x > 1, ((2,), True)),
    (lambda x: float("nan"), ((2,), float("nan"))),
    (lambda x: torch.tensor([1.0, float("-inf")]),
     ((2,), torch.tensor([1.0, float("-inf")]))),
    (lambda x: [0.5, 0.5], ((2,), torch.tensor([0.5, 0.5]))),
    (lambda x: x, ((5,), lambda got: None if got > 4 else "too small")),
]  # fmt: skip


@pytest.mark.parametrize(("answer", "case"), RIGHT)
def test_check_right_answers(
    said: Callable[..., str], answer: Any, case: tuple[Any, ...]
) -> None:
    assert said(answer, case, case) == "correct: 2 of 2 cases"


WRONG = [
    (lambda x: x + 1, ((3,), 6), "for (3) you return 4, not 6"),
    (lambda x: print(end=""), ((3,), 6), "None"),
    (lambda x: "6", ((3,), 6), "'6'"),
    (lambda x: 1 / 0, ((3,), 6), "ZeroDivisionError: division"),
    (lambda: 1, ((3,), 6), "TypeError"),
    (lambda x: torch.ones(2), ((1,), 1.0), "[1, 1], not 1"),
    (lambda x: torch.ones(3, 3), ((1,), torch.ones(9)), "(3, 3)"),
    (lambda x: torch.eye(4) * 3, ((1,), torch.eye(4)), "index (0, 0)"),
    (lambda x: [[1], []], ((1,), torch.eye(4)), "not a tensor of shape"),
    (lambda x: [1], ((1,), [1, 2]), "[1], not [1, 2]"),
    (lambda x: (1, 3), ((1,), (1, 2)), "(1, 3), not (1, 2)"),
    (lambda x: 5, ((1,), (1, 2)), "5, not (1, 2)"),
    (lambda x: {"a": 1}, ((1,), {"a": 2}), "{'a': 2}"),
    (lambda x: x, ((3,), lambda got: "not a sum"), "not a sum"),
]


@pytest.mark.parametrize(("answer", "case", "part"), WRONG)
def test_check_wrong_answers_say_why_in_one_line(
    said: Callable[..., str], answer: Any, case: tuple[Any, ...], part: str
) -> None:
    printed = said(answer, case)
    assert part in printed and "\n" not in printed
    assert printed.startswith("not yet: for (")
    assert printed.endswith("(0 of 1 cases pass). Hint: think again")


def test_check_stub_is_not_attempted(said: Callable[..., str]) -> None:
    assert said(_stub, ((3,), 6)) == UNTOUCHED


def test_check_tolerance_is_the_cases_own(said: Callable[..., str]) -> None:
    for almost, expected in ((1.05, 1.0), (1.05 * ONES, ONES)):
        case = ((1,), expected)
        assert said(lambda x, y=almost: y, case).startswith("not yet")
        assert said(lambda x, y=almost: y, (*case, 0.1)).startswith("correct")


def test_check_counts_the_cases_that_pass(said: Callable[..., str]) -> None:
    printed = said(abs, ((3,), 3), ((-3,), -3), ((1,), 1))
    assert "for (-3) you return 3, not -3 (1 of 3 cases pass)" in printed


@pytest.mark.parametrize("name", ["00.11", "77.1"])
def test_check_unknown_exercise_names_the_known_ones(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    check(name, abs)
    printed = capsys.readouterr().out
    assert name in printed and ("00.1, 00.2" in printed) == (name[0] == "0")


def test_progress_counts_what_is_done(
    said: Callable[..., str], capsys: pytest.CaptureFixture[str]
) -> None:
    said(_double, ((1,), 2))
    exercise("99.2", hint="h")(lambda: [((1,), 2)])
    progress("99")
    first, done, untouched = capsys.readouterr().out.splitlines()
    assert "1 of 2" in first
    assert "99.1" in done and done.endswith("done")
    assert "99.2" in untouched and untouched.endswith(UNTOUCHED)


def _code(path: Any) -> list[str]:
    cells = nbformat.read(path, as_version=4).cells
    return [cell.source for cell in cells if cell.cell_type == "code"]


@pytest.mark.parametrize("notebook", NOTEBOOKS)
def test_solutions_pass_their_checks(
    notebook: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = ROOT / "notebooks" / "solutions" / f"{notebook}_solutions.ipynb"
    scope: dict[str, Any] = {}
    for source in _code(path):
        exec(source, scope)
    import_module(f"helpers.exercises.nb{notebook}")
    cases = [name for name in EXERCISES if name.startswith(f"{notebook}.")]
    printed = capsys.readouterr().out
    assert cases and printed.count("correct: ") == len(cases)
    assert f"{len(cases)} of {len(cases)} done" in printed


@pytest.mark.parametrize("notebook", NOTEBOOKS)
def test_untouched_stubs_are_not_attempted(
    notebook: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (path,) = (ROOT / "notebooks").glob(f"{notebook}_*.ipynb")
    stubs = [source for source in _code(path) if "\ncheck(" in source]
    for source in stubs:
        exec(f"import torch\n{source}", {"check": check})
    printed = capsys.readouterr().out.splitlines()
    assert printed == [UNTOUCHED] * len(stubs) and stubs
