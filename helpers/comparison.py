"""Say in words how a learner's value differs from the expected one."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

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
