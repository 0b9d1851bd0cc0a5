"""The teacher's traces: made once, kept as JSON lines, safe to kill.

A trace file grows in the order of the problems, every line flushed to disk. A
second run validates what it finds, drops a half-written last line, and
continues. A model in this process answers whole chunks, each with a seed of
its own; a server answers questions, each with a seed of its own. So the
finished file is the same with and without interruptions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from tqdm.auto import tqdm

from helpers import chat, parallel
from helpers.answers import is_correct
from helpers.generate import Completion, Sampling, chunks, generate
from helpers.memory import weights_hash
from helpers.profiles import Profile
from helpers.trace_files import (
    FIELDS,
    TraceFileError,
    answered,
    audit_traces,
    filter_traces,
    load_traces,
)
from helpers.trace_resume import (
    append_rows,
    check_complete,
    merge_parts,
    part_path,
    resume_point,
)
from helpers.trace_server import Server, ask_all

__all__ = [
    "FIELDS",
    "TraceFileError",
    "answered",
    "audit_traces",
    "filter_traces",
    "generate_traces",
    "load_traces",
    "server_traces",
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
    } | profile.sampling(seed)


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

    def answer(chunk: list[dict], number: int) -> list[Completion]:
        torch.manual_seed(seed * 100_003 + number)
        return answer_chunk(
            chunk, teacher, tokenizer, profile, progress=progress
        )

    return write_traces(
        problems,
        path,
        answer,
        record=sampling_record(profile, seed, teacher),
        size=BATCHES_A_CHUNK * profile.generation_batch,
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

    Under `accelerate launch` every process answers its share into a file of
    its own, continues it after a kill, and the first one merges them. Raises
    TraceFileError when `path` already holds only some of the answers.
    """
    world, rank = parallel.world(), parallel.rank()
    own = path if world == 1 else part_path(path, rank, world)
    if world > 1 and path.exists():
        record = sampling_record(profile, seed, teacher.model)
        check_complete(path, problems, record)
        return load_traces(path)
    generate_traces(
        problems[rank::world],
        teacher.model,
        teacher.tokenizer,
        own,
        profile=profile,
        seed=seed,
        progress=parallel.first(),
    )
    parallel.wait()
    if world > 1 and parallel.first():
        merge_parts(path, problems, world)
    parallel.wait()
    return load_traces(path)


def server_traces(
    problems: list[dict],
    server: Server,
    path: Path,
    *,
    profile: Profile,
    seed: int = 7,
    progress: bool = True,
) -> Any:
    """`generate_traces` with the teacher behind a server.

    Each answer is on disk as soon as all before it are. Raises ServerError
    when the server stays silent, with the file ending before the first gap;
    the next run asks from there on.
    """
    record = server.record(profile, seed)
    done = resume_point(path, problems, record)
    append_rows(path, [])  # no write access? say so before the work
    unanswered = iter(problems[done:])

    def keep(answer: Completion) -> None:
        append_rows(path, [make_row(next(unanswered), answer, record)])

    with tqdm(unit=" tokens", desc="teacher", disable=not progress) as bar:
        ask_all(
            server,
            [
                teacher_messages(p["question"], profile)
                for p in problems[done:]
            ],
            profile=profile,
            seeds=[seed * 100_003 + i for i in range(done, len(problems))],
            keep=keep,
            bar=bar,
        )
    return load_traces(path)


def write_traces(
    problems: list[dict],
    path: Path,
    answer: Callable[[list[dict], int], Sequence[Completion]],
    *,
    record: dict[str, Any],
    size: int,
) -> Any:
    """The file, chunk by chunk; `answer` gives the completions.

    answer: called with a chunk and its number, returns one Completion a
    problem, in order. A chunk that is begun is answered again as a whole.
    """
    done = resume_point(path, problems, record)
    append_rows(path, [])  # no write access? say so before the work
    start = 0
    for number, chunk in enumerate(chunks(problems, size)):
        missing = max(0, done - start)
        start += len(chunk)
        if missing >= len(chunk):
            continue
        for problem, completion in list(
            zip(chunk, answer(chunk, number), strict=True)
        )[missing:]:
            append_rows(path, [make_row(problem, completion, record)])
    return load_traces(path)


def make_row(
    problem: dict, completion: Completion, record: dict[str, Any]
) -> dict[str, Any]:
    """One line of a trace file."""
    return {
        "id": problem["id"],
        "question": problem["question"],
        "gold": problem["answer"],
        "qwen3_answer": completion.text,
        "finish_reason": completion.finish_reason,
        "completion_tokens": completion.tokens,
        "correct": is_correct(completion.text, problem["answer"]),
        "sampling": record,
    }


def answer_chunk(
    problems: list[dict],
    teacher: Any,
    tokenizer: Any,
    profile: Profile,
    *,
    progress: bool,
) -> list[Completion]:
    """One completion per problem, in the order of the problems."""
    prompts = [
        chat.render(
            teacher_messages(problem["question"], profile),
            tokenizer,
            generate=True,
        )
        for problem in problems
    ]
    return generate(
        teacher,
        tokenizer,
        prompts,
        sampling=Sampling(profile.temperature, profile.top_p, profile.top_k),
        max_new_tokens=profile.max_new_tokens,
        batch_size=profile.generation_batch,
        progress="teacher" if progress else None,
    )
