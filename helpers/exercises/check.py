"""Exercises that answer back: one line that says what is right or wrong.

An author registers worked cases next to the others in exercise_cases.py:

    @exercise("03.1", hint="divide by the largest absolute value")
    def quantize_to_nf4():
        yield (torch.tensor([1.0, -2.0]),), torch.tensor([0.5, -1.0])
        yield (torch.zeros(2),), torch.zeros(2), 1e-3

Each case is (arguments, expected) or (arguments, expected, tolerance); a
single argument needs no tuple around it, unless it is one itself. An
expected value may also be a function: it gets the learner's value and
returns what is wrong with it in a few words, or None. The learner then calls
`check("03.1", their_function)`. Nothing here ever raises, so that "run all"
passes on an untouched notebook.
"""

from __future__ import annotations

import difflib
import dis
import importlib
import math
import pkgutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from html import escape
from typing import Any

import numpy as np

import helpers

LONGEST = 60  # characters of a value that are shown


def difference(value: Any, expected: Any, tolerance: float) -> str | None:
    """What is wrong with `value`, in a few words, or None.

    Numbers, arrays and tensors agree within `tolerance`, absolute or
    relative, whichever is larger; lists, tuples and mappings are compared
    item by item; everything else by ==. A function as `expected` gets the
    value and answers itself.
    """
    if isinstance(expected, Callable):
        return expected(value)
    if value is None and expected is not None:
        return "you return nothing (None): does it end with a return?"
    if _is_array(expected):
        return _array_difference(value, expected, tolerance)
    if isinstance(expected, Mapping):
        return _mapping_difference(value, expected, tolerance)
    if isinstance(expected, (list, tuple)):
        return _sequence_difference(value, expected, tolerance)
    return _scalar_difference(value, expected, tolerance)


def describe(value: Any) -> str:
    """A value in one short line; a large tensor by its shape."""
    if _is_array(value):
        array = _to_array(value)
        if array.size > 8:
            return f"a tensor of shape {tuple(array.shape)}"
        return _short(str(_rounded(array.tolist())))
    if callable(value):
        return getattr(value, "__name__", type(value).__name__)
    return _short(repr(_rounded(value)))


def _array_difference(
    value: Any, expected: Any, tolerance: float
) -> str | None:
    wanted = _to_array(expected)
    if not _is_array(value) and not isinstance(value, (int, float, list)):
        return f"you return {_kind(value)}, expected a tensor"
    try:
        got = _to_array(value)
    except ValueError:  # a ragged list
        return f"you return {describe(value)}, expected a tensor"
    if got.shape != wanted.shape:
        return f"you return shape {got.shape}, expected shape {wanted.shape}"
    close = np.isclose(
        got, wanted, rtol=tolerance, atol=tolerance, equal_nan=True
    )
    if close.all():
        return None
    if wanted.size <= 8:
        return f"you return {describe(got)}, expected {describe(wanted)}"
    if np.isnan(got).any() and not np.isnan(wanted).any():
        return f"{int(np.isnan(got).sum())} of your numbers are NaN"
    with np.errstate(invalid="ignore"):  # infinity minus infinity
        distance = np.nan_to_num(np.abs(got - wanted), nan=np.inf)
    farthest = np.where(close, -1.0, distance).argmax()
    worst = np.unravel_index(farthest, got.shape)
    place = tuple(int(index) for index in worst)
    return (
        f"{int((~close).sum())} of {wanted.size} numbers differ, the most at "
        f"{place}: {got[worst]:.4g} instead of {wanted[worst]:.4g}"
    )


def _mapping_difference(
    value: Any, expected: Mapping[Any, Any], tolerance: float
) -> str | None:
    if not isinstance(value, Mapping):
        return f"you return {_kind(value)}, expected a {_kind(expected)}"
    for key, wanted in expected.items():
        if key not in value:
            return f"the key {key!r} is missing"
        wrong = difference(value[key], wanted, tolerance)
        if wrong:
            return f"at key {key!r} {wrong}"
    extra = [key for key in value if key not in expected]
    return f"the key {extra[0]!r} is not asked for" if extra else None


def _sequence_difference(
    value: Any, expected: list[Any] | tuple[Any, ...], tolerance: float
) -> str | None:
    if _is_array(value):
        value = _to_array(value).tolist()
    if not isinstance(value, (list, tuple)):
        return f"you return {_kind(value)}, expected a {_kind(expected)}"
    if len(value) != len(expected):
        return f"you return {len(value)} items, expected {len(expected)}"
    for place, (got, wanted) in enumerate(zip(value, expected, strict=True)):
        wrong = difference(got, wanted, tolerance)
        if wrong:
            return f"at item {place} {wrong}"
    return None


def _scalar_difference(
    value: Any, expected: Any, tolerance: float
) -> str | None:
    if _is_array(value):
        array = _to_array(value)
        if array.size != 1 and _is_number(expected):
            return f"you return shape {array.shape}, expected one number"
        value = value.item() if array.size == 1 else value
    if _is_number(expected) and _is_number(value):
        close = math.isclose(
            value, expected, rel_tol=tolerance, abs_tol=tolerance
        )
        same = close or (math.isnan(value) and math.isnan(expected))
    else:
        kinds = {isinstance(value, bool), isinstance(expected, bool)}
        same = len(kinds) == 1 and value == expected
    if same:
        return None
    return f"you return {describe(value)}, expected {describe(expected)}"


def _is_array(value: Any) -> bool:
    return isinstance(value, (np.ndarray, np.generic)) or hasattr(
        value, "detach"
    )


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _to_array(value: Any) -> np.ndarray:
    """Any tensor, array or list of numbers as float64 on the CPU."""
    if hasattr(value, "detach"):
        value = value.detach().cpu().double().numpy()
    return np.asarray(value, dtype=np.float64)


def _rounded(value: Any) -> Any:
    """Floats to four significant digits, inside lists and tuples too."""
    if isinstance(value, float):
        return float(f"{value:.4g}")
    if isinstance(value, list):
        return [_rounded(item) for item in value]
    if isinstance(value, tuple):
        return tuple(_rounded(item) for item in value)
    return value


def _kind(value: Any) -> str:
    return type(value).__name__


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= LONGEST else f"{line[: LONGEST - 1]}…"


NOT_ATTEMPTED = "not attempted yet"
DONE, OPEN, UNTOUCHED = "done", "not yet", NOT_ATTEMPTED
TOLERANCE = 1e-4
_MARKS = {DONE: "✓", OPEN: "✗", UNTOUCHED: "·"}
_COLOURS = {DONE: "#2a9d8f", OPEN: "#d9822b", UNTOUCHED: "#6b7280"}

Case = tuple[Any, ...]


@dataclass(frozen=True)
class Exercise:
    """What to call, what to expect, and the hint for whoever is stuck."""

    name: str
    title: str
    hint: str
    cases: Callable[[], Iterable[Case]]


EXERCISES: dict[str, Exercise] = {}
_STATUS: dict[str, str] = {}


def exercise(
    name: str, *, hint: str
) -> Callable[[Callable[[], Iterable[Case]]], Callable[[], Iterable[Case]]]:
    """Register the decorated function's cases as exercise `name`.

    name: notebook and number, "03.1". The function's own name, with its
    underscores as spaces, is the title in the progress panel.

    Raises:
        ValueError: the name is taken by other cases.
    """

    def register(cases: Callable[[], Iterable[Case]]):  # noqa: ANN202
        title = cases.__name__.replace("_", " ").strip()
        known = EXERCISES.get(name)
        if known is not None and known.title != title:
            raise ValueError(
                f'exercise "{name}" is already "{known.title}": give '
                f'"{title}" the next free number.'
            )
        EXERCISES[name] = Exercise(name, title, hint, cases)
        return cases

    return register


def check(name: str, answer: Any) -> None:
    """Print one line about a learner's answer. Never raises.

    name: the exercise, "03.1". answer: the function that was asked for, or a
    plain value where the exercise asks for one.
    """
    known = registered()
    if name not in known:
        close = difflib.get_close_matches(str(name), known, n=1)
        hint = f' Did you mean "{close[0]}"?' if close else ""
        print(f'there is no exercise "{name}".{hint}')
        return
    try:
        cases = [_complete(case) for case in known[name].cases()]
    except Exception as error:
        print(
            f"the cases of exercise {name} are broken, not your answer: "
            f"{_error_text(error)}"
        )
        return
    status, message = _judge(answer, cases, known[name].hint)
    _STATUS[name] = status
    print(message)


def progress(notebook: str | None = None) -> Progress:
    """The panel of this notebook's exercises and how far they are.

    notebook: "03"; by default the notebook of the latest check.
    """
    latest = next(reversed(_STATUS), "").partition(".")[0]
    chosen = notebook or latest
    return Progress(
        [
            (name, item.title, _STATUS.get(name, UNTOUCHED))
            for name, item in sorted(registered().items(), key=_by_number)
            if name.partition(".")[0] == chosen or not chosen
        ]
    )


@dataclass(frozen=True)
class Progress:
    """Rows of (exercise, title, status), as HTML or as plain text."""

    rows: list[tuple[str, str, str]]

    def __repr__(self) -> str:
        lines = [self._headline()] + [
            f"{_MARKS[status]} {name}  {title}: {status}"
            for name, title, status in self.rows
        ]
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        cells = "".join(
            f'<li style="list-style:none;margin:2px 0">'
            f'<b style="color:{_COLOURS[status]}">{_MARKS[status]}</b> '
            f"<b>{escape(name)}</b> {escape(title)} "
            f'<span style="opacity:.65">{status}</span></li>'
            for name, title, status in self.rows
        )
        return (
            '<div style="border-left:4px solid #2a9d8f;padding:2px 12px">'
            f"<b>{escape(self._headline())}</b>"
            f'<ul style="margin:4px 0;padding:0">{cells}</ul></div>'
        )

    def _headline(self) -> str:
        done = sum(status == DONE for _, _, status in self.rows)
        return f"Exercises: {done} of {len(self.rows)} done"


def registered() -> dict[str, Exercise]:
    """All exercises, after importing every helpers/exercise_cases*.py."""
    for module in pkgutil.iter_modules(helpers.__path__):
        if module.name.startswith("exercise_cases"):
            importlib.import_module(f"helpers.{module.name}")
    return EXERCISES


# --- judging ----------------------------------------------------------------


def _complete(case: Case) -> tuple[tuple[Any, ...], Any, float]:
    arguments, expected, *rest = case
    if not isinstance(arguments, tuple):
        arguments = (arguments,)
    return arguments, expected, rest[0] if rest else TOLERANCE


def _judge(
    answer: Any, cases: list[tuple[tuple[Any, ...], Any, float]], hint: str
) -> tuple[str, str]:
    """Status and the line to print."""
    if answer is ... or answer is None or _is_stub(answer):
        return UNTOUCHED, NOT_ATTEMPTED
    for number, (arguments, expected, tolerance) in enumerate(cases, start=1):
        where = f"for {_call_text(arguments)} " if arguments else ""
        try:
            value = answer(*arguments) if callable(answer) else answer
            if value is ...:
                return UNTOUCHED, NOT_ATTEMPTED
            wrong = difference(value, expected, tolerance)
        except NotImplementedError:
            return UNTOUCHED, NOT_ATTEMPTED
        except (Exception, SystemExit) as error:
            wrong = f"your code stops with {_error_text(error)}"
        if wrong:
            passed = f" ({number - 1} of {len(cases)} cases pass)"
            line = f"not yet: {where}{wrong.rstrip('.')}{passed}. Hint: {hint}"
            return OPEN, " ".join(line.split())
    return DONE, f"correct: {len(cases)} of {len(cases)} cases"


def _by_number(entry: tuple[str, Exercise]) -> tuple[str, int, str]:
    notebook, _, number = entry[0].partition(".")
    return notebook, int(number) if number.isdigit() else 0, number


def _is_stub(answer: Any) -> bool:
    """Whether a function's body is only `...`, `pass` or a docstring."""
    code = getattr(answer, "__code__", None)
    if code is None:
        return False
    harmless = {"RESUME", "NOP", "LOAD_CONST", "RETURN_VALUE", "RETURN_CONST"}
    steps = list(dis.get_instructions(code))
    constants = [
        step.argval
        for step in steps
        if step.opname in ("LOAD_CONST", "RETURN_CONST")
    ]
    only = all(step.opname in harmless for step in steps)
    return only and constants == [None] and code.co_argcount > 0


def _error_text(error: BaseException) -> str:
    """The kind of an error and its first line, in one line."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else repr(error)


def _call_text(arguments: tuple[Any, ...]) -> str:
    return f"({', '.join(describe(argument) for argument in arguments)})"
