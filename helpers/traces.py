"""The teacher's traces: made once, kept as JSON lines, safe to kill.

The file grows in the order of the problems. A second run compares it with
problems and settings, drops a torn last line, and ends in the same file.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Callable, Generator, Iterable
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from helpers import CourseError, chat
from helpers.answers import is_correct, split_trace
from helpers.files.disk import alone, append, ordinary
from helpers.generate import Completion, generate
from helpers.models import check_dtype, processes, weights_hash
from helpers.profiles import Profile

FIELDS = dict.fromkeys(
    ("id", "question", "gold", "qwen3_answer", "finish_reason"), str
) | {"completion_tokens": int, "correct": bool, "sampling": dict}
ROW_START = b'{"id": "'  # as json.dumps begins a row of FIELDS
NEWER = ("prompt", "template_sha256")  # older files do not record it
BATCHES_A_CHUNK = 4  # a kill costs at most this many batches of work


class TraceFileError(CourseError):
    """A trace file that cannot be used; names file, line and cure."""


def parse_rows(content: bytes, name: str) -> list[dict]:
    """Rows of the file `name`: every field of its type, no id twice."""
    rows: dict[str, dict] = {}
    lines = content.split(b"\n")  # JSON allows U+2028 and the like in a text
    for number, line in enumerate(lines[:-1], start=1):
        try:
            row = json.loads(line)
            for field, kind in FIELDS.items():
                if type(row[field]) is not kind:
                    raise TypeError(f"{field!r} is no {kind.__name__}")
                if kind is str:
                    row[field].encode()  # half a surrogate pair is no text
            if not 0 <= row["completion_tokens"] < 2**31:
                raise ValueError("completion_tokens is out of range")
            if row["id"] in rows:
                raise ValueError(f"the id {row['id']!r} came before")
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise TraceFileError(
                f"{name}, line {number}: {type(error).__name__}: {error}. "
                "`helpers traces --repair FILE` copies the good lines."
            ) from error
        rows[row["id"]] = row
    return list(rows.values())


def read_traces(path: Path) -> list[dict]:
    """Every row of a trace file, checked; raises TraceFileError."""
    try:
        content = ordinary(path).read_bytes()
    except OSError as error:
        raise TraceFileError(
            f"{path.name} cannot be read ({type(error).__name__}). Notebook "
            "02, or `python3 -m helpers traces`, makes trace files."
        ) from error
    return parse_rows(content.removesuffix(b"\n") + b"\n", path.name)


def load_traces(path: Path) -> Any:
    """A trace file as a datasets.Dataset; TraceFileError names the line."""
    from datasets import Dataset

    rows = read_traces(Path(path))
    try:
        return Dataset.from_list(rows)
    except (ArithmeticError, TypeError, ValueError) as error:
        reason = f"{path}: `sampling` is not alike in all lines: {error}"
        raise TraceFileError(reason) from error


def asked(problem: dict) -> dict[str, str]:
    """What a row repeats of its problem."""
    names = {"id": "id", "question": "question", "gold": "answer"}
    return {name: problem[source] for name, source in names.items()}


def loops(text: str, *, size: int = 8, times: int = 4) -> bool:
    """Whether `size` words or more come `times` times, one after the other.

    A thought that goes back to its question, other words between, is none.
    """
    _, words = np.unique(text.split(), return_inverse=True)
    for period in range(size, len(words) // times + 1):
        repeats = words[period:] == words[:-period]
        breaks = np.flatnonzero(~np.pad(repeats, 1))
        if np.diff(breaks).max() > (times - 1) * period:  # the longest run
            return True
    return False


def faults(row: dict) -> dict[str, bool]:
    """What may be wrong with one trace, worst first, and whether it is."""
    text = row["qwen3_answer"]
    trace = split_trace(text)
    return {
        "cut by the token limit": row["finish_reason"] == "length",
        "thought not closed": not trace.closed,
        "tags doubled": max(map(text.count, ("<think>", "</think>"))) > 1,
        "thought empty": trace.closed and not (trace.thinking or "").strip(),
        "answer empty": trace.closed and not trace.answer.strip(),
        "loops": loops(text),
        "wrong answer": not row["correct"],
    }


def audit_traces(
    rows: Iterable[dict], *, test_questions: Iterable[str] = ()
) -> dict[str, int]:
    """Counts of everything that can be wrong, and lengths in tokens."""
    rows, test = list(rows), set(test_questions)
    counts: Counter[str] = Counter()
    for row in rows:
        counts.update({name: int(bad) for name, bad in faults(row).items()})
    lengths = sorted(row["completion_tokens"] for row in rows) or [0]
    return {
        "traces": len(rows),
        "correct": sum(row["correct"] for row in rows),
        **counts,
        "repeated questions": len(rows) - len({r["question"] for r in rows}),
        "questions of the test": sum(r["question"] in test for r in rows),
        "tokens, median": lengths[len(lengths) // 2],
        "tokens, longest": lengths[-1],
        "tokens, all": sum(lengths),
    }


def filter_traces(
    rows: Iterable[dict],
    *,
    correct_only: bool = True,
    max_tokens: int | None = None,
) -> tuple[list[dict], Counter[str]]:
    """The traces worth training on, and why the others were dropped.

    Unfinished, empty or looping traces always go; wrong ones go with
    `correct_only`. The counter names one reason, the worst, per trace.
    """
    worth, reasons = [], Counter()
    for row in rows:
        checks = faults(row)
        checks["wrong answer"] &= correct_only
        if max_tokens is not None:
            too_long = row["completion_tokens"] > max_tokens
            checks[f"longer than {max_tokens} tokens"] = too_long
        if against := [name for name, holds in checks.items() if holds]:
            reasons[against[0]] += 1
        else:
            worth.append(row)
    return worth, reasons


def check_fit(
    rows: list[dict], problems: list[dict], record: dict, name: str
) -> None:
    """Raises TraceFileError when the rows were made for something else."""
    if len(rows) > len(problems):
        raise TraceFileError(
            f"{name} holds {len(rows)} traces, but only {len(problems)} "
            "problems were asked for. Name another file, or raise the limit."
        )
    pairs = zip(rows, problems, strict=False)  # a begun file has fewer rows
    newer = {name: record[name] for name in NEWER if name in record}
    for number, (row, problem) in enumerate(pairs, start=1):
        row = row | {"sampling": newer | row["sampling"]}
        for field, value in (asked(problem) | {"sampling": record}).items():
            if row[field] != value:
                raise TraceFileError(
                    f"{name}, line {number}: {field} is {row[field]!r}, this "
                    f"run expects {value!r}. It was made for other problems "
                    "or settings: name another file, or delete this."
                )


def resume_point(path: Path, problems: list[dict], record: dict) -> int:
    """How many of the problems the file already answers, in order.

    A torn last line is cut off if it begins like a row and all before it
    fits; else TraceFileError is raised, and the file stays as it is.
    """
    content = ordinary(path).read_bytes() if path.exists() else b""
    end = content.rfind(b"\n") + 1
    rows, torn = parse_rows(content[:end], path.name), content[end:]
    check_fit(rows, problems, record, path.name)
    begun = torn.startswith(ROW_START[: len(torn)])
    if not begun or torn.count(ROW_START) > 1 or b"\r\n" in content:
        raise TraceFileError(
            f"{path.name} ends in what is no trace: {torn[:40]!r}. Name "
            "another file, or delete that line (lines end in a line feed)."
        )
    if torn:
        os.truncate(path, end)
    return len(rows)


def teacher_messages(question: str, profile: Profile) -> chat.Messages:
    """What the teacher is asked, in the profile's wording."""
    content = profile.teacher_prompt.format(question=question)
    return [{"role": "user", "content": content}]


def sampling_record(
    teacher: str, made_by: dict[str, str], profile: Profile, seed: int
) -> dict[str, Any]:
    """What decides a trace; made_by: hash of the weights, or a backend."""
    record = {"teacher": Path(teacher).name} | made_by
    record |= {"prompt": profile.teacher_prompt}
    return record | asdict(profile.sampling(seed))


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

    Continues an existing file. Raises TraceFileError when that was made for
    other problems or settings, and leaves it untouched; ModelError for a
    teacher that holds NaN.
    """
    check_dtype(teacher, profile)
    sampling = profile.sampling(seed)
    size = BATCHES_A_CHUNK * profile.generation_batch
    chats = [teacher_messages(row["question"], profile) for row in problems]
    prompts = [chat.render(x, tokenizer, generate=True) for x in chats]

    def answers(done: int) -> Generator[Completion]:
        for start in range(done - done % size, len(prompts), size):
            torch.manual_seed(seed * 100_003 + start // size)
            chunk = generate(  # as a whole, also where it was begun
                teacher,
                tokenizer,
                prompts[start : start + size],
                sampling=sampling,
                batch_size=profile.generation_batch,
                progress="teacher" if progress else None,
            )
            yield from chunk[max(0, done - start) :]

    template = hashlib.sha256(tokenizer.chat_template.encode())
    made_by = {
        "teacher_sha256": weights_hash(teacher)[:12],
        "template_sha256": template.hexdigest()[:12],
    }
    record = sampling_record(profile.teacher, made_by, profile, seed)
    return write_traces(problems, path, answers, record=record)


def write_traces(
    problems: list[dict],
    path: Path,
    answers: Callable[[int], Generator[Completion]],
    *,
    record: dict[str, Any],
) -> Any:
    """The file, each answer on disk as it comes; any backend.

    answers: from how many problems have one to the others' Completions.
    """
    with alone(path, if_only=processes().is_main_process):
        done = resume_point(path, problems, record)
        if done == len(problems):
            return load_traces(path)
        append(path, "")  # no write access? say so before the work
        with closing(answers(done)) as completions:
            pairs = zip(problems[done:], completions, strict=True)
            for problem, completion in pairs:
                row = asked(problem) | {
                    "qwen3_answer": completion.text,
                    "finish_reason": completion.finish_reason,
                    "completion_tokens": completion.tokens,
                    "correct": is_correct(completion.text, problem["answer"]),
                    "sampling": record,
                }
                append(path, json.dumps(row, ensure_ascii=False) + "\n")
    return load_traces(path)
