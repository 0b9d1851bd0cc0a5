"""The teacher's traces: made once, kept as JSON lines, safe to kill.

The file grows in the order of the problems. A second run compares it with
problems and settings, drops a torn last line, and ends in the same file.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Generator, Iterable
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from helpers import chat
from helpers.answers import is_correct, split_trace
from helpers.files.disk import alone, append
from helpers.files.traces import TraceFileError as TraceFileError
from helpers.files.traces import asked, load_traces, resume_point
from helpers.generate import Completion, generate
from helpers.models import check_dtype, processes, weights_hash
from helpers.profiles import Profile

BATCHES_A_CHUNK = 4  # a kill costs at most this many batches of work


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
