"""Where data lives, and writing files that no crash can harm."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DATA = ROOT / "data"
RUNS = DATA / "runs"


def write_atomic(path: Path, text: str) -> Path:
    """Write `text` beside `path`, flush it to disk, then swap it in.

    Raises OSError with a cure when the disk is full or the folder cannot be
    written; the file that was there before stays as it was.
    """
    draft = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(
            "w", dir=path.parent, encoding="utf-8", newline="\n", delete=False
        ) as handle:
            draft = Path(handle.name)
            handle.write(text)
            handle.flush()
            os.fsync(handle.fileno())
        draft.chmod(0o644)  # a temporary file is for its owner alone
        os.replace(draft, path)
    except OSError as error:
        raise OSError(
            error.errno,
            f"cannot write {path.name}: {error.strerror}. Free some space or "
            "check the folder's permissions; the old file is unchanged",
        ) from error
    finally:
        if draft is not None:
            draft.unlink(missing_ok=True)
    return path


def read_lines(path: Path) -> list[str]:
    """The lines of a JSON-lines file, without what ends them.

    Not `str.splitlines`: that also cuts at U+2028 and U+0085, which JSON
    allows inside a text.
    """
    lines = path.read_text(encoding="utf-8").split("\n")
    return lines[:-1] if lines[-1] == "" else lines
