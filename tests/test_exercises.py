"""helpers.exercises.check: what a learner reads, for every kind of answer."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch

from helpers.exercises.check import check, exercise, progress, registered
from helpers.exercises.check import check as exercises


@pytest.fixture(autouse=True)
def _own_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exercises, "EXERCISES", dict(registered()))
    monkeypatch.setattr(exercises, "_STATUS", {})


@pytest.fixture
def said(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Register cases as 99.1, check an answer, return the line printed."""

    def run(answer: Any, *cases: tuple[Any, ...]) -> str:
        exercise("99.1", hint="think again")(lambda: cases)
        check("99.1", answer)
        return capsys.readouterr().out.rstrip("\n")

    return run


def _double(x: Any) -> Any:
    return 2 * x


def _raises(error: BaseException) -> Callable[..., Any]:
    def answer(*_: Any) -> Any:
        raise error

    return answer


def _dots(x: Any) -> Any: ...


def _only_a_docstring(x: Any) -> Any:
    """To be written."""


def _returns_dots(x: Any) -> Any:
    return ...


RIGHT = [
    ((_double), ((3,), 6)),
    ((_double), ((0.1,), 0.2)),
    ((_double), ((torch.ones(2),), torch.full((2,), 2.0))),
    ((_double), ((np.ones(2),), np.full(2, 2.0))),
    ((_double), ((torch.tensor(3.0),), 6.0)),
    ((_double), (("ab",), "abab")),
    (lambda x: (x, [x, 1]), ((2,), (2, [2.0, 1]))),
    (lambda x: {"a": x}, ((2,), {"a": 2})),
    (lambda x: x > 1, ((2,), True)),
    (lambda x: x > 1, ((torch.tensor(2),), True)),
    (lambda x: float("nan"), ((2,), float("nan"))),
    (lambda x: torch.tensor([1.0, float("-inf")]),
     ((2,), torch.tensor([1.0, float("-inf")]))),
    (lambda x: [0.5, 0.5], ((2,), torch.tensor([0.5, 0.5]))),
    (42, ((), 42)),
    (_double, (3, 6)),
    (lambda x: x, ((5,), lambda got: None if got > 4 else "too small")),
]  # fmt: skip


@pytest.mark.parametrize(("answer", "case"), RIGHT)
def test_check_right_answers(
    said: Callable[..., str], answer: Any, case: tuple[Any, ...]
) -> None:
    assert said(answer, case, case) == "correct: 2 of 2 cases"


WRONG = [
    (lambda x: x + 1, ((3,), 6), "for (3) you return 4, expected 6"),
    (lambda x: print(end=""), ((3,), 6), "you return nothing (None)"),
    (lambda x: True, ((3,), 1), "you return True, expected 1"),
    (lambda x: "6", ((3,), 6), "you return '6', expected 6"),
    (lambda x: 1 / 0, ((3,), 6), "stops with ZeroDivisionError: division"),
    (lambda: 1, ((3,), 6), "stops with TypeError:"),
    (_raises(SystemExit(1)), ((3,), 6), "stops with SystemExit: 1"),
    (_raises(ValueError("a\nb")), ((3,), 6), "stops with ValueError: a ("),
    (lambda x: torch.ones(2, 3), ((1,), torch.ones(3, 2)),
     "you return shape (2, 3), expected shape (3, 2)"),
    (lambda x: torch.ones(2), ((1,), 1.0), "shape (2,), expected one number"),
    (lambda x: torch.tensor([1.0, 2.5]), ((1,), torch.tensor([1.0, 2.0])),
     "you return [1.0, 2.5], expected [1.0, 2.0]"),
    (lambda x: torch.eye(4) * 3, ((1,), torch.eye(4)),
     "4 of 16 numbers differ, the most at (0, 0): 3 instead of 1"),
    (lambda x: torch.eye(4) / 0, ((1,), torch.eye(4)), "12 of your numbers"),
    (lambda x: "no", ((1,), torch.eye(4)), "you return str, expected a tens"),
    (lambda x: [[1], []], ((1,), torch.eye(4)), "expected a tensor"),
    (lambda x: [1], ((1,), [1, 2]), "you return 1 items, expected 2"),
    (lambda x: (1, 3), ((1,), (1, 2)), "at item 1 you return 3, expected 2"),
    (lambda x: 5, ((1,), (1, 2)), "you return int, expected a tuple"),
    (lambda x: {"a": 1}, ((1,), {"a": 2}), "at key 'a' you return 1"),
    (lambda x: {}, ((1,), {"a": 2}), "the key 'a' is missing"),
    (lambda x: {"b": 1}, ((1,), {}), "the key 'b' is not asked for"),
    (lambda x: x, ((3,), lambda got: "not a sum"), "not a sum"),
    (41, ((), 42), "not yet: you return 41, expected 42"),
]  # fmt: skip


@pytest.mark.parametrize(("answer", "case", "line"), WRONG)
def test_check_wrong_answers_say_why_in_one_line(
    said: Callable[..., str], answer: Any, case: tuple[Any, ...], line: str
) -> None:
    printed = said(answer, case)
    assert line in printed
    assert printed.startswith("not yet: ")
    assert printed.endswith("(0 of 1 cases pass). Hint: think again")
    assert "\n" not in printed


@pytest.mark.parametrize(
    "answer",
    [..., None, _dots, _only_a_docstring, _returns_dots,
     _raises(NotImplementedError())],
)  # fmt: skip
def test_check_untouched_stub(said: Callable[..., str], answer: Any) -> None:
    assert said(answer, ((3,), 6)) == "not attempted yet"


def test_check_tolerance_is_the_cases_own(said: Callable[..., str]) -> None:
    assert said(lambda x: 1.05, ((1,), 1.0)).startswith("not yet")
    assert said(lambda x: 1.05, ((1,), 1.0, 0.1)).startswith("correct")
    tensor = torch.ones(3)
    almost = lambda x: tensor * 1.05  # noqa: E731
    assert said(almost, ((1,), tensor)).startswith("not yet")
    assert said(almost, ((1,), tensor, 0.1)).startswith("correct")


def test_check_counts_the_cases_that_pass(said: Callable[..., str]) -> None:
    printed = said(abs, ((3,), 3), ((-3,), -3), ((1,), 1))
    assert "for (-3) you return 3, expected -3 (1 of 3 cases pass)" in printed


def test_check_lets_the_stop_button_through(said: Callable[..., str]) -> None:
    with pytest.raises(KeyboardInterrupt):
        said(_raises(KeyboardInterrupt()), ((3,), 6))


def test_check_unknown_exercise(capsys: pytest.CaptureFixture[str]) -> None:
    check("00.11", abs)
    printed = capsys.readouterr().out
    assert printed.startswith('there is no exercise "00.11". Did you mean')


def test_check_broken_cases_blame_the_course(
    capsys: pytest.CaptureFixture[str],
) -> None:
    @exercise("99.2", hint="none")
    def broken() -> Iterator[Any]:
        yield (1,), 1
        raise RuntimeError("no file")

    check("99.2", abs)
    printed = capsys.readouterr().out
    assert "broken, not your answer: RuntimeError: no file" in printed


def test_exercise_name_taken_twice() -> None:
    @exercise("99.3", hint="")
    def one() -> Any:
        return [((1,), 1)]

    exercise("99.3", hint="better")(one)  # the same again: a reload
    with pytest.raises(ValueError, match='"99.3" is already "one"'):

        @exercise("99.3", hint="")
        def other() -> Any:
            return []


def test_shipped_cases_are_complete() -> None:
    for name, item in registered().items():
        cases = list(item.cases())
        assert cases and item.hint and name.count(".") == 1
        assert all(len(case) in (2, 3) for case in cases)


def test_shipped_sample_right_and_wrong(
    capsys: pytest.CaptureFixture[str],
) -> None:
    def is_equal_answer(a: str, b: str) -> bool:
        return float(a.replace(",", "")) == float(b.replace(",", ""))

    check("00.1", is_equal_answer)
    check("00.1", lambda a, b: a == b)
    right, wrong = capsys.readouterr().out.splitlines()
    assert right == "correct: 4 of 4 cases"
    assert "for ('1,200', '1200') you return False, expected True" in wrong


def test_progress_follows_the_latest_notebook(
    said: Callable[..., str],
) -> None:
    exercise("99.2", hint="h")(lambda: [((1,), 2)])
    exercise("98.1", hint="h")(lambda: [((1,), 2)])
    said(_double, ((1,), 2))
    panel = progress()
    assert [row[0] for row in panel.rows] == ["99.1", "99.2"]
    assert [row[2] for row in panel.rows] == ["done", "not attempted yet"]
    assert repr(panel).startswith("Exercises: 1 of 2 done\n✓ 99.1")


def test_progress_sorts_by_number(said: Callable[..., str]) -> None:
    exercise("99.10", hint="h")(lambda: [((1,), 2)])
    exercise("99.2", hint="h")(lambda: [((1,), 2)])
    said(_double, ((1,), 2))
    names = [row[0] for row in progress().rows]
    assert names == ["99.1", "99.2", "99.10"]


def test_progress_of_a_named_notebook_and_its_html(
    said: Callable[..., str],
) -> None:
    said(lambda x: x + 5, ((1,), 2))
    names = [row[0] for row in progress("00").rows]
    assert "00.1" in names and "99.1" not in names
    html = progress("99")._repr_html_()
    assert "Exercises: 0 of 1 done" in html and "not yet" in html
    assert "&lt;lambda&gt;" in html and "<lambda>" not in html
