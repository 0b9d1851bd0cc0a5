"""Continuing a trace file: what is there, does it fit, what is missing."""

from __future__ import annotations

import json
import os
from pathlib import Path

from helpers.files import write_atomic
from helpers.trace_files import TraceFileError, check_lines, read_traces


def resume_point(path: Path, problems: list[dict], record: dict) -> int:
    """How many of the problems the file already answers, in order.

    The line that a kill left half written is cut off, but only after all
    else has been found to fit. Otherwise TraceFileError is raised and the
    file stays as it was.
    """
    if not path.exists():
        return 0
    try:
        content = path.read_bytes()
        keep = content.rfind(b"\n") + 1
        whole = content[:keep].decode().split("\n")[:-1]
    except (OSError, UnicodeDecodeError) as error:
        raise TraceFileError(
            f"{path.name} cannot be continued ({type(error).__name__}). Name "
            "another file."
        ) from error
    rest = content[keep:]
    finished = is_json(rest)
    if finished:  # whole but for its newline
        whole.append(rest.decode())
    rows = check_lines(whole, path.name)
    check_rows_fit(rows, problems, record, path.name)
    if finished:
        append_rows(path, [], text="\n")
    elif rest:
        check_rest_fits(rest, problems[len(rows) :], path.name)
        os.truncate(path, keep)
    return len(rows)


def check_rows_fit(
    rows: list[dict], problems: list[dict], record: dict, name: str
) -> None:
    """Raises TraceFileError when the rows were made for something else."""
    if len(rows) > len(problems):
        raise TraceFileError(
            f"{name} holds {len(rows)} traces, but only {len(problems)} "
            "problems were asked for. Name another file, or raise the limit."
        )
    for number, (row, problem) in enumerate(
        zip(rows, problems, strict=False), start=1
    ):
        for field, expected in (
            ("id", problem["id"]),
            ("question", problem["question"]),
            ("gold", problem["answer"]),
            ("sampling", record),
        ):
            if row[field] != expected:
                raise TraceFileError(
                    f"{name}, line {number}: {field} is {row[field]!r}, "
                    f"this run expects {expected!r}. The file was made for "
                    "other problems or settings; name another file, or "
                    "delete this one."
                )


def check_rest_fits(rest: bytes, problems: list[dict], name: str) -> None:
    """A last line may only be cut off if it is the start of the next row."""
    start = b""
    if problems:
        known = {key: problems[0][key] for key in ("id", "question")}
        start = json.dumps(known, ensure_ascii=False)[:-1].encode()
    if not start or not (rest.startswith(start) or start.startswith(rest)):
        raise TraceFileError(
            f"{name} ends in a line that no run of these problems has begun: "
            f"{rest[:40]!r}. Name another file, or delete that line."
        )


def is_json(line: bytes) -> bool:
    """Whether a line is complete; a half-written object never is."""
    try:
        json.loads(line)
    except ValueError:
        return False
    return True


def append_rows(path: Path, rows: list[dict], *, text: str = "") -> None:
    """Append `text`, then a line for each row, flushed to disk one by one.

    Makes the file and its folder. Raises OSError with the cure.
    """
    lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in rows]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="utf-8", newline="\n") as handle:
            for line in [text, *lines]:
                handle.write(line)
                handle.flush()
                os.fsync(handle.fileno())
    except OSError as error:
        raise OSError(
            error.errno,
            f"cannot write {path.name}: {error.strerror}. What was written "
            "is kept; make space or check permissions and run it again, it "
            "continues where it stopped",
        ) from error


def check_complete(path: Path, problems: list[dict], record: dict) -> None:
    """Raises TraceFileError unless the file answers all of the problems."""
    rows = read_traces(path)
    check_rows_fit(rows, problems, record, path.name)
    if len(rows) < len(problems):
        raise TraceFileError(
            f"{path.name} holds {len(rows)} of {len(problems)} answers. "
            "Continue it with one process, or name another file."
        )


def part_path(path: Path, rank: int, world: int) -> Path:
    """Where one of several processes keeps its share of a trace file."""
    return path.with_name(f"{path.stem}.part{rank}of{world}{path.suffix}")


def merge_parts(path: Path, problems: list[dict], world: int) -> None:
    """One file from the shares of `world` processes, in the problems' order.

    The file appears complete or not at all, and only then do the parts go.
    Raises TraceFileError when a part is missing or an answer is.
    """
    parts = [part_path(path, rank, world) for rank in range(world)]
    rows = {row["id"]: row for part in parts for row in read_traces(part)}
    missing = [p["id"] for p in problems if p["id"] not in rows]
    if missing:
        raise TraceFileError(
            f"{len(missing)} of {len(problems)} answers are missing, the "
            f"first is {missing[0]!r}. Start the same command again."
        )
    lines = [
        json.dumps(rows[problem["id"]], ensure_ascii=False) + "\n"
        for problem in problems
    ]
    write_atomic(path, "".join(lines))
    for part in parts:
        part.unlink()
