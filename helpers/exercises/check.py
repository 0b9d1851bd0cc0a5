"""Exercises that answer back: one line that says what is right or wrong.

An author registers worked cases in nb03.py, for notebook 03:

    @exercise("03.1", hint="divide by the largest absolute value")
    def quantize_to_nf4():
        yield (torch.tensor([1.0, -2.0]),), torch.tensor([0.5, -1.0])
        yield (torch.zeros(2),), torch.zeros(2), 1e-3

Each case is (arguments, expected) or (arguments, expected, tolerance); a
single argument needs no tuple around it, unless it is one itself. An
expected value may also be a function: it gets the learner's value and
returns what is wrong with it in a few words, or None. The learner then calls
`check("03.1", their_function)`; a function that raises NotImplementedError
has not been attempted. No answer stops a notebook.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import torch

LONGEST = 60  # characters of a value that are shown
TOLERANCE = 1e-4  # absolute or relative, whichever is larger
DONE, OPEN, UNTOUCHED = "done", "not yet", "not attempted yet"
_MARKS = {DONE: "✓", OPEN: "✗", UNTOUCHED: "·"}

Cases = Iterator[tuple[Any, ...]]


@dataclass
class Exercise:
    """A hint for whoever is stuck, the cases, and how far the learner is."""

    title: str
    hint: str
    cases: Callable[[], Cases]
    status: str = UNTOUCHED


EXERCISES: dict[str, Exercise] = {}


def exercise(name: str, *, hint: str) -> Callable[[Any], Any]:
    """Register the decorated function's cases as exercise `name`.

    name: notebook and number, "03.1". The function's own name, with its
    underscores as spaces, is the title when `progress` prints it.
    """

    def register(cases: Callable[[], Cases]) -> Any:
        title = cases.__name__.replace("_", " ")
        EXERCISES[name] = Exercise(title, hint, cases)
        return cases

    return register


def check(name: str, answer: Callable[..., Any]) -> None:
    """Print one line about the function that exercise `name` asks for."""
    found = exercises_of(name.partition(".")[0])
    if name not in found:
        known = ", ".join(found) or "none in a notebook of that number"
        print(f'there is no exercise "{name}"; there is {known}')
        return
    found[name].status, line = _judge(answer, found[name])
    print(" ".join(line.split()))


def progress(notebook: str) -> None:
    """Print the exercises of a notebook, "03", and how far they are."""
    items = exercises_of(notebook)
    done = [item.status for item in items.values()].count(DONE)
    print(f"Exercises: {done} of {len(items)} done")
    for name, item in items.items():
        print(f"{_MARKS[item.status]} {name}  {item.title}: {item.status}")


def exercises_of(notebook: str) -> dict[str, Exercise]:
    """The exercises of notebook "03" by name, from helpers/exercises/nb03."""
    try:
        import_module(f"helpers.exercises.nb{notebook}")
    except ModuleNotFoundError:
        pass
    return {
        name: item
        for name, item in EXERCISES.items()
        if name.startswith(f"{notebook}.")
    }


def _judge(answer: Callable[..., Any], item: Exercise) -> tuple[str, str]:
    """Status and the line to print."""
    cases = list(item.cases())
    for number, (arguments, expected, *rest) in enumerate(cases):
        if not isinstance(arguments, tuple):
            arguments = (arguments,)
        try:
            value = answer(*arguments)
            wrong = difference(value, expected, *rest)
        except NotImplementedError:
            return UNTOUCHED, UNTOUCHED
        except Exception as error:
            wrong = f"your code stops with {type(error).__name__}: {error}"
        if wrong:
            given = ", ".join(describe(argument) for argument in arguments)
            passed = f"({number} of {len(cases)} cases pass)"
            line = f"not yet: for ({given}) {wrong} {passed}."
            return OPEN, f"{line} Hint: {item.hint}"
    return DONE, f"correct: {len(cases)} of {len(cases)} cases"


def difference(
    value: Any, expected: Any, tolerance: float = TOLERANCE
) -> str | None:
    """What is wrong with `value`, in a few words, or None.

    Numbers and tensors agree within `tolerance`; lists and tuples are
    compared item by item, everything else by ==. A function as `expected`
    gets the value and answers itself.
    """
    if callable(expected):
        return expected(value)
    if value is None:
        return "you return nothing (None): does it end with a return?"
    try:
        _assert_same(value, expected, tolerance)
    except (AssertionError, TypeError, ValueError) as error:
        short = not isinstance(expected, torch.Tensor) or expected.numel() < 9
        why = f": {error}" if str(error) and not short else ""
        return f"you return {describe(value)}, not {describe(expected)}{why}"
    return None


def _assert_same(value: Any, expected: Any, tolerance: float) -> None:
    if isinstance(expected, (list, tuple)):
        assert isinstance(value, (list, tuple, torch.Tensor))
        assert len(value) == len(expected)
        for one, other in zip(value, expected, strict=True):
            _assert_same(one, other, tolerance)
    elif isinstance(expected, (torch.Tensor, int, float)):
        torch.testing.assert_close(
            torch.as_tensor(value, dtype=torch.float64, device="cpu"),
            torch.as_tensor(expected, dtype=torch.float64),
            rtol=tolerance, atol=tolerance, equal_nan=True,
        )  # fmt: skip
    else:
        assert value == expected


def describe(value: Any) -> str:
    """A value in one short line; a large tensor by its shape."""
    if isinstance(value, torch.Tensor):
        if value.numel() > 8:
            return f"a tensor of shape {tuple(value.shape)}"
        value = value.tolist()
    if isinstance(value, (list, tuple)):
        ends = "[]" if isinstance(value, list) else "()"
        text = ends[0] + ", ".join(map(describe, value)) + ends[1]
    else:
        text = f"{value:.4g}" if isinstance(value, float) else repr(value)
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"
