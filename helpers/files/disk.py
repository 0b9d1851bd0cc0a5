"""Read what may be broken, write what must not break.

It imports the standard library alone, and filelock where a lock is taken.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from helpers import CourseError, first_line

LOCKS = Path(__file__).parents[2] / "data" / "runs" / "locks"


def write_atomic(path: Path, text: str | bytes) -> Path:
    """Write `text` (UTF-8) beside `path`, flush it to disk, then swap it in.

    Raises OSError with a cure when the disk is full or the folder cannot be
    written; the file that was there before stays as it was.
    """
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    content = text.encode() if isinstance(text, str) else text
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with draft.open("wb") as handle:
            handle.write(content)
            handle.flush()
            os.fsync(handle.fileno())
        swap(draft, path)
    except OSError as error:
        reason = (
            f"cannot write {path.name}: {error.strerror}. Free some space or "
            "check the folder's permissions; the old file is unchanged"
        )
        raise OSError(error.errno, reason) from error
    finally:
        draft.unlink(missing_ok=True)
    return path


def swap(draft: Path, path: Path) -> None:
    """Rename a file or folder; on Windows a virus scanner may hold it."""
    for wait in (0.1, 0.3, 1, 3, None):
        try:
            return os.replace(draft, path)
        except PermissionError:
            if os.name != "nt" or wait is None:
                raise
            time.sleep(wait)


def append(path: Path, text: str) -> None:
    """Append to the file, made with its folder, and flush it to disk."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="utf-8", newline="\n") as handle:
            handle.write(text)
            handle.flush()
            os.fsync(handle.fileno())
    except OSError as error:
        cure = "Make space or check permissions, run it again: it goes on"
        reason = f"cannot write {path.name}: {error.strerror}. {cure}"
        raise OSError(error.errno, reason) from error


def ordinary(path: Path, most: int = 2**32) -> Path:
    """The path, if it is a file of at most `most` bytes, or nothing yet.

    Raises CourseError for a device, a pipe, a folder or a larger file.
    """
    if path.exists() and not (path.is_file() and path.stat().st_size <= most):
        raise CourseError(
            f"{path.name} is no ordinary file, or larger than "
            f"{most / 2**30:g} GiB. Name another file."
        )
    return path


def read_json(path: Path) -> dict[str, Any]:
    """A file's JSON object, {} where there is no file; else CourseError."""
    try:
        content = json.loads(ordinary(path).read_bytes())
        if not isinstance(content, dict):
            raise TypeError("no JSON object")
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise CourseError(
            f"{path.parent.name}/{path.name} is broken ({first_line(error)}). "
            "Delete it, or begin anew with overwrite=True or another name."
        ) from error
    return content


@contextlib.contextmanager
def alone(path: Path, *, if_only: bool = True) -> Iterator[None]:
    """Write `path` while nobody else does; a killed process holds no lock.

    if_only: False, and nothing is locked. Raises CourseError where another
    run holds it.
    """
    from filelock import FileLock, Timeout

    name = hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:16]
    lock = FileLock(LOCKS / name, timeout=0)
    if if_only:
        LOCKS.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire()
        except Timeout as error:
            raise CourseError(
                f"another run is writing {path.name} just now. Wait until it "
                "has ended, or name another."
            ) from error
    try:
        yield
    finally:
        lock.release()


def read_lines(path: Path) -> list[str]:
    """The lines of a JSON-lines file, the last one's end ignored.

    Not `str.splitlines`, which also cuts at U+2028: JSON allows it in a text.
    """
    text = ordinary(path).read_text(encoding="utf-8-sig")  # Windows' mark too
    return text.removesuffix("\n").split("\n")
