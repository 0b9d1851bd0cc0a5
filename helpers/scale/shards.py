"""One trace file by several hands: backends, and a launcher's processes.

Each process answers every n-th problem into a part file of its own, which it
continues after a kill. When all parts are complete they become one file.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from helpers.files.disk import write_atomic
from helpers.files.traces import TraceFileError, asked, read_traces
from helpers.models import processes
from helpers.profiles import Profile
from helpers.traces import generate_traces


def answered(path: Path, problems: list[dict], profile: Profile) -> bool:
    """Whether the file answers the problems, in order, whoever wrote it.

    Any backend and any seed, with the profile's sampling settings. Raises
    TraceFileError for a broken file.
    """
    rows = read_traces(path) if path.exists() else []
    settings = asdict(profile.sampling())
    del settings["seed"]
    return len(rows) == len(problems) and all(
        asked(problem).items() <= row.items()
        and settings.items() <= row["sampling"].items()
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
    """`generate_traces`, the problems dealt out to all processes.

    Raises TraceFileError when `path` already holds only some of the answers,
    or was made for something else.
    """
    here = processes()
    which, count = here.process_index, here.num_processes
    write = partial(
        generate_traces,
        teacher=teacher.model,
        tokenizer=teacher.tokenizer,
        profile=profile,
        seed=seed,
        progress=here.is_main_process,
    )
    if count > 1 and not path.exists():
        if share := problems[which::count]:
            write(share, path=part_path(path, which, count))
        here.wait_for_everyone()
        if here.is_main_process:
            merge_parts(path, problems, count)
        here.wait_for_everyone()
    elif count > 1 and path.read_bytes().count(b"\n") < len(problems):
        raise TraceFileError(
            f"{path.name} does not hold all {len(problems)} answers. Continue "
            "it with one process, or name another file."
        )
    return write(problems, path=path)


def part_path(path: Path, which: int, count: int) -> Path:
    """Where one of several keeps its share of a trace file."""
    return path.with_name(f"{path.stem}.part{which}of{count}{path.suffix}")


def merge_parts(path: Path, problems: list[dict], count: int) -> None:
    """One file from `count` parts, in the problems' order.

    The file appears complete or not at all, and only then do the parts go.
    Raises TraceFileError when a part is missing or an answer is.
    """
    shares = range(min(count, len(problems)))
    parts = [part_path(path, which, count) for which in shares]
    rows = {row["id"]: row for part in parts for row in read_traces(part)}
    missing = [p["id"] for p in problems if p["id"] not in rows]
    if missing:
        raise TraceFileError(
            f"{len(missing)} of {len(problems)} answers are missing, the "
            f"first is {missing[0]!r}. Start the same command again."
        )
    merged = (json.dumps(rows[p["id"]], ensure_ascii=False) for p in problems)
    write_atomic(path, "\n".join(merged) + "\n")
    for part in parts:
        part.unlink(missing_ok=True)
