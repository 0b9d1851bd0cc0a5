"""Exercises that answer back: one line that says what is right or wrong.

nb03.py holds the exercises of notebook 03: a function that solves it, with
its worked cases. The learner calls `check("03.1", their_function)`; one that
raises NotImplementedError has not been attempted. No answer stops a notebook.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from copy import deepcopy
from dataclasses import dataclass
from importlib import import_module
from textwrap import shorten
from typing import Any

import torch

TOLERANCE = 1e-4  # absolute or relative, whichever is larger
DONE, OPEN, UNTOUCHED = "done", "not yet", "not attempted yet"
MARKS = {DONE: "✓", OPEN: "✗", UNTOUCHED: "·"}

Case = tuple[Any, Any]  # arguments, expected value
Cases = Iterator[Case]


@dataclass
class Exercise:
    """A hint for whoever is stuck, the cases, and how far the learner is."""

    title: str
    hint: str
    cases: list[Case]
    reference: Callable[..., Any] | None = None
    status: str = UNTOUCHED


EXERCISES: dict[str, Exercise] = {}


def exercise(
    name: str, hint: str, *cases: Case, asked: Iterable[tuple] = ()
) -> Callable[[Any], Any]:
    """Register the decorated function as what solves exercise `name`.

    name: notebook and number, "03.1". The function's own name is the title;
    `chosen` gives it to who has no answer yet. cases: (arguments, expected
    value); a single argument needs no tuple around it. asked: arguments for
    which the function itself says what is expected.
    """

    def register(reference: Callable[..., Any]) -> Any:
        title = reference.__name__.replace("_", " ")
        judged = [*cases, *((given, reference(*given)) for given in asked)]
        EXERCISES[name] = Exercise(title, hint, judged, reference)
        return reference

    return register


def check(name: str, answer: Callable[..., Any]) -> None:
    """Print one line about the function that exercise `name` asks for."""
    items = exercises_of(name.partition(".")[0])
    if name not in items:
        print(f"there is no exercise {name}; there is {', '.join(items)}")
        return
    items[name].status, line = judge(answer, items[name])
    print(" ".join(line.split()))


def chosen(name: str, answer: Callable[..., Any]) -> Callable[..., Any]:
    """The learner's function where it passes all cases, else the reference.

    Prints which of the two the following cells use.
    """
    item = exercises_of(name.partition(".")[0])[name]
    passes = judge(answer, item)[0] == DONE
    whose = "your own" if passes else "the reference's"
    print(f"From here on: {whose} {item.title.replace(' ', '_')}")
    return answer if passes else item.reference


def progress(notebook: str) -> None:
    """Print the exercises of a notebook, "03", and how far they are."""
    items = exercises_of(notebook)
    done = [item.status for item in items.values()].count(DONE)
    print(f"Exercises: {done} of {len(items)} done")
    for name, item in items.items():
        print(f"{MARKS[item.status]} {name}  {item.title}: {item.status}")


def exercises_of(notebook: str) -> dict[str, Exercise]:
    """The exercises of notebook "03" by name, from helpers/exercises/nb03."""
    import_module(f"helpers.exercises.nb{notebook}")
    start = f"{notebook}."
    return {k: item for k, item in EXERCISES.items() if k.startswith(start)}


def judge(answer: Callable[..., Any], item: Exercise) -> tuple[str, str]:
    """Status and what to print; the first wrong case decides."""
    count = len(item.cases)
    for number, (arguments, expected) in enumerate(item.cases):
        if not isinstance(arguments, tuple):
            arguments = (arguments,)
        try:
            value = answer(*deepcopy(arguments))  # it may change them
        except NotImplementedError:
            return UNTOUCHED, UNTOUCHED
        except Exception as error:
            wrong = f"your code stops with {type(error).__name__}: {error}"
        else:
            wrong = difference(value, expected)
        if wrong:
            given = ", ".join(map(short, arguments))
            passed = f"({number} of {count} cases pass)"
            line = f"not yet: for ({given}) {wrong} {passed}."
            return OPEN, f"{line} Hint: {item.hint}"
    return DONE, f"correct: {count} of {count} cases"


def difference(value: Any, expected: Any) -> str | None:
    """What is wrong with `value`, in torch.testing's words, or None.

    Numbers, in lists and tensors too, agree within TOLERANCE; everything
    else is compared by ==.
    """
    value, expected = plain(value), plain(expected)
    if value == expected:
        return None
    try:
        torch.testing.assert_close(
            value, expected, rtol=TOLERANCE, atol=TOLERANCE, equal_nan=True,
            check_dtype=False,
        )  # fmt: skip
    except AssertionError as error:
        return f"you return {short(value)}: {error}"
    except Exception:  # no numbers: torch.testing has no words for them
        return f"you return {short(value)}, not {short(expected)}"
    return None


def short(value: Any) -> str:
    """A value in at most 60 characters."""
    return shorten(repr(value), 60, placeholder=" ...")


def plain(value: Any) -> Any:
    """Tensors and arrays as lists of numbers, tuples as lists."""
    if hasattr(value, "tolist"):
        return value.tolist()
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return value
