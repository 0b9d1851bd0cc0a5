"""The teacher's traces: made once, kept as JSON lines, safe to kill.

A trace file grows chunk by chunk in the order of the problems, every line
flushed to disk. A second run validates what it finds, drops a half-written
last line, and continues; each chunk has its own seed, so the finished file
is the same with and without interruptions.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import torch

from helpers import chat
from helpers.answers import is_correct
from helpers.commands import command_parser
from helpers.generate import Sampling, chunks, generate
from helpers.memory import weights_hash
from helpers.profiles import Profile, get_profile
from helpers.trace_files import (
    FIELDS,
    TraceFileError,
    audit_traces,
    check_lines,
    filter_traces,
    load_traces,
)

__all__ = [
    "FIELDS",
    "TraceFileError",
    "audit_traces",
    "filter_traces",
    "generate_traces",
    "load_traces",
    "teacher_messages",
]

BATCHES_A_CHUNK = 4  # a kill costs at most this many batches of work


def teacher_messages(question: str, profile: Profile) -> chat.Messages:
    """What the teacher is asked, in the profile's wording."""
    content = profile.teacher_prompt.format(question=question)
    return [{"role": "user", "content": content}]


def sampling_record(
    profile: Profile, seed: int, teacher: Any
) -> dict[str, Any]:
    """Everything that decides a trace besides the question."""
    return {
        "teacher": Path(profile.teacher).name,
        "teacher_sha256": weights_hash(teacher)[:12],
        "temperature": profile.temperature,
        "top_p": profile.top_p,
        "top_k": profile.top_k,
        "max_new_tokens": profile.max_new_tokens,
        "seed": seed,
    }


def generate_traces(
    problems: list[dict],
    teacher: Any,
    tokenizer: Any,
    path: Path,
    *,
    profile: Profile,
    seed: int = 7,
    progress: bool = True,
) -> Any:
    """Let the teacher answer every problem once; returns a datasets.Dataset.

    Continues an existing file. Raises TraceFileError when that file was made
    for other problems or with other sampling settings: it is left untouched.
    """
    record = sampling_record(profile, seed, teacher)
    done = resume_point(path, problems, record)
    append_rows(path, [])  # no write access? say so before the work
    start = 0
    size = BATCHES_A_CHUNK * profile.generation_batch
    for number, chunk in enumerate(chunks(problems, size)):
        missing = max(0, done - start)
        start += len(chunk)
        if missing >= len(chunk):
            continue
        torch.manual_seed(seed * 100_003 + number)
        rows = answer_chunk(
            chunk, teacher, tokenizer, profile, record, progress=progress
        )
        append_rows(path, rows[missing:])
    return load_traces(path)


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
                    "other problems or settings; name another file."
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


def answer_chunk(
    problems: list[dict],
    teacher: Any,
    tokenizer: Any,
    profile: Profile,
    record: dict[str, Any],
    *,
    progress: bool,
) -> list[dict]:
    """One finished row per problem, in the order of the problems."""
    prompts = [
        chat.render(
            teacher_messages(problem["question"], profile),
            tokenizer,
            generate=True,
        )
        for problem in problems
    ]
    completions = generate(
        teacher,
        tokenizer,
        prompts,
        sampling=Sampling(profile.temperature, profile.top_p, profile.top_k),
        max_new_tokens=profile.max_new_tokens,
        batch_size=profile.generation_batch,
        progress="teacher" if progress else None,
    )
    return [
        {
            "id": problem["id"],
            "question": problem["question"],
            "gold": problem["answer"],
            "qwen3_answer": completion.text,
            "finish_reason": completion.finish_reason,
            "completion_tokens": completion.tokens,
            "correct": is_correct(completion.text, problem["answer"]),
            "sampling": record,
        }
        for problem, completion in zip(problems, completions, strict=True)
    ]


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


def main(argv: list[str]) -> int:
    """`python3 -m helpers traces`."""
    from helpers.models import load_teacher
    from helpers.problems import load_problems

    parser = command_parser("traces", __doc__)
    parser.add_argument("--limit", type=int, help="number of problems")
    parser.add_argument("--output", type=Path, help="the trace file")
    options = parser.parse_args(argv)
    profile = get_profile(options.profile)
    problems = load_problems(
        profile.problems, "train", limit=options.limit or profile.traces
    )
    path = options.output or profile.traces_path
    teacher = load_teacher(profile)
    traces = generate_traces(
        problems,
        teacher.model,
        teacher.tokenizer,
        path,
        profile=profile,
        seed=options.seed,
    )
    for name, value in audit_traces(traces).items():
        print(f"{name:>22}  {value}")
    return 0
