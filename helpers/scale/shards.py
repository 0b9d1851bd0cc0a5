"""One trace file by several hands: backends, a launcher's processes, shards.

Each answers every n-th problem into a part file of its own, which it
continues after a kill. When all parts are complete they become one file.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from helpers.models import processes, weights_hash
from helpers.profiles import Profile, write_atomic
from helpers.traces import (
    TraceFileError,
    asked,
    check_fit,
    generate_traces,
    load_traces,
    read_traces,
    sampling_record,
)


def answered(path: Path, problems: list[dict], profile: Profile) -> bool:
    """Whether the file answers the problems, in order, whoever wrote it.

    Any backend and any seed, with the profile's sampling settings. Raises
    TraceFileError for a broken file.
    """
    rows = read_traces(path) if path.exists() else []
    wanted = asdict(profile.sampling())
    del wanted["seed"]
    return len(rows) == len(problems) and all(
        asked(problem).items() <= row.items()
        and wanted.items() <= row["sampling"].items()
        for row, problem in zip(rows, problems, strict=True)
    )


def shared_traces(
    problems: list[dict],
    teacher: Any,
    path: Path,
    *,
    profile: Profile,
    seed: int = 7,
) -> Any:
    """`generate_traces`, the problems dealt out to all processes."""
    weights = {"teacher_sha256": weights_hash(teacher.model)[:12]}
    sampling = profile.sampling(seed)

    def write(share: list[dict], part: Path) -> Any:
        return generate_traces(
            share,
            teacher.model,
            teacher.tokenizer,
            part,
            profile=profile,
            seed=seed,
            progress=processes().is_main_process,
        )

    return write_share(
        problems,
        path,
        write,
        record=sampling_record(profile.teacher, weights, sampling),
        shard=(processes().process_index, processes().num_processes),
    )


def write_share(
    problems: list[dict],
    path: Path,
    write: Callable[[list[dict], Path], Any],
    *,
    record: dict[str, Any],
    shard: tuple[int, int],
) -> Any:
    """Let `write` answer one share; returns the whole file as a Dataset.

    shard: which share, counted from 0, and of how many. None is returned
    while other shards are at work. Raises TraceFileError when `path` already
    holds only some of the answers.
    """
    which, count = shard
    if count == 1:
        return write(problems, path)
    if path.exists():
        rows = read_traces(path)
        check_fit(rows, problems, record, path.name)
        if len(rows) < len(problems):
            raise TraceFileError(
                f"{path.name} holds {len(rows)} of {len(problems)} answers. "
                "Continue it with one process, or name another file."
            )
        return load_traces(path)
    write(problems[which::count], part_path(path, which, count))
    processes().wait_for_everyone()
    if processes().is_main_process and complete(path, problems, count):
        try:
            merge_parts(path, problems, count)
        except TraceFileError:
            if not path.exists():  # else another shard has just done it
                raise
    processes().wait_for_everyone()
    return load_traces(path) if path.exists() else None


def part_path(path: Path, which: int, count: int) -> Path:
    """Where one of several keeps its share of a trace file."""
    return path.with_name(f"{path.stem}.part{which}of{count}{path.suffix}")


def complete(path: Path, problems: list[dict], count: int) -> bool:
    """Whether every part has a line for each of its problems."""
    parts = [part_path(path, which, count) for which in range(count)]
    return all(
        part.exists()
        and part.read_bytes().count(b"\n") == len(problems[which::count])
        for which, part in enumerate(parts)
    )


def merge_parts(path: Path, problems: list[dict], count: int) -> None:
    """One file from `count` parts, in the problems' order.

    The file appears complete or not at all, and only then do the parts go.
    Raises TraceFileError when a part is missing or an answer is.
    """
    parts = [part_path(path, which, count) for which in range(count)]
    rows = {row["id"]: row for part in parts for row in read_traces(part)}
    missing = [p["id"] for p in problems if p["id"] not in rows]
    if missing:
        raise TraceFileError(
            f"{len(missing)} of {len(problems)} answers are missing, the "
            f"first is {missing[0]!r}. Start the same command again."
        )
    lines = (
        json.dumps(rows[problem["id"]], ensure_ascii=False) + "\n"
        for problem in problems
    )
    write_atomic(path, "".join(lines))
    for part in parts:
        part.unlink(missing_ok=True)
