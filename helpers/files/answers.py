"""An answer file: what a model wrote, appended as JSON lines."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path


def read_answers(path: Path, decides: dict) -> dict[str, dict]:
    """By prompt, the rows of an answer file that the same things decided.

    Other weights' and half-written rows stay where they are, unread.
    """
    rows = []
    for part in sorted(path.parent.glob(f"{path.stem}.*jsonl")):
        for line in part.read_bytes().splitlines():
            with contextlib.suppress(ValueError):
                rows.append(json.loads(line))
    return {r["prompt"]: r for r in rows if decides.items() <= r.items()}
