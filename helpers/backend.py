"""Which Unsloth there is, and silence while libraries load."""

from __future__ import annotations

import contextlib
import io
import logging
import os
from collections.abc import Iterator
from functools import cache
from typing import Any

import torch


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Hold back what libraries print while they load; errors still rise.

    `Loaded.backend` says in one line what the banners say in several.
    """
    library = logging.getLogger("transformers")
    level = library.level
    library.setLevel(logging.ERROR)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        library.setLevel(level)


@cache
def unsloth_backend() -> tuple[Any, str]:
    """Unsloth's FastLanguageModel and its version, or None and the reason.

    Set DISTILL_NO_UNSLOTH=1 to use the fallback on purpose.
    """
    if os.environ.get("DISTILL_NO_UNSLOTH") == "1":
        return None, "DISTILL_NO_UNSLOTH=1 asks for the fallback"
    try:
        with quiet():
            import unsloth
    except (ImportError, NotImplementedError, RuntimeError) as error:
        return None, f"{type(error).__name__}: {first_line(error)}"
    where = "GPU" if torch.cuda.is_available() else "CPU"
    name = f"unsloth {unsloth.__version__} ({where})"
    return unsloth.FastLanguageModel, name


def first_line(error: Exception) -> str:
    """The first line of an error's text, its type where it has none."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]
