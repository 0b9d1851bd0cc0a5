"""A model's chat template: a program in a file that a stranger may have sent.

transformers runs it in a sandbox, which has no limit of time or length.
"""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from typing import Any

from helpers import CourseError

SECONDS, LONGEST = 5, 100_000  # and how many characters it may add
REFUSED = "its chat template loops, or writes too much. Use another model."


def fill_template(
    tokenizer: Any, messages: list[dict[str, str]], *, generate: bool
) -> str:
    """The rendered text; CourseError for a template that does not end."""
    reason = f"{tokenizer.name_or_path}: {REFUSED}"
    with one_alarm(reason):
        text = tokenizer.apply_chat_template(
            messages, tokenize=False, add_generation_prompt=generate
        )
    if len(text) > LONGEST + sum(len(m["content"]) for m in messages):
        raise CourseError(reason)
    return text


@contextlib.contextmanager
def one_alarm(reason: str) -> Iterator[None]:
    """CourseError after SECONDS; Unix's main thread alone has an alarm."""

    def stop(*_: Any) -> None:
        raise CourseError(reason)

    main = threading.current_thread() is threading.main_thread()
    before = None
    if main and hasattr(signal, "setitimer"):
        before = signal.signal(signal.SIGALRM, stop)
        signal.setitimer(signal.ITIMER_REAL, SECONDS)
    try:
        yield
    finally:
        if before is not None:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)
