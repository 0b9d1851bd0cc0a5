"""The teacher's traces: made once, kept as JSON lines, safe to kill.

A trace file grows in the order of the problems, every line flushed to disk. A
second run validates what it finds, drops a half-written last line, and
continues. A model in this process answers whole chunks, each with a seed of
its own; a server answers questions, each with a seed of its own. So the
finished file is the same with and without interruptions.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from tqdm.auto import tqdm

from helpers import CourseError, chat
from helpers.answers import is_correct, split_trace
from helpers.generate import Completion, chunks, generate
from helpers.models import processes, weights_hash
from helpers.profiles import Profile, read_lines, write_atomic
from helpers.scale.server import Server, ask_all

FIELDS = {
    "id": str,
    "question": str,
    "gold": str,
    "qwen3_answer": str,
    "finish_reason": str,
    "completion_tokens": int,
    "correct": bool,
    "sampling": dict,
}


class TraceFileError(CourseError):
    """A trace file that cannot be used; names file, line and cure."""


def read_traces(path: Path) -> list[dict]:
    """Every row of a trace file, checked; raises TraceFileError."""
    try:
        rows = check_lines(read_lines(path), path.name)
    except FileNotFoundError as error:
        raise TraceFileError(
            f"{path.name} does not exist. Run notebook 02, or "
            "`python3 -m helpers traces`, to make it."
        ) from error
    except (OSError, UnicodeDecodeError) as error:
        raise TraceFileError(
            f"{path.name} cannot be read ({type(error).__name__}). Name a "
            "trace file that you may read."
        ) from error
    if not rows:
        raise TraceFileError(
            f"{path.name} is empty. Delete it and run "
            "`python3 -m helpers traces` again."
        )
    return rows


def check_lines(lines: list[str], name: str) -> list[dict]:
    """Parsed lines of the file `name`; no id may come twice."""
    rows: list[dict] = []
    first_line: dict[str, int] = {}
    for number, line in enumerate(lines, start=1):
        row = check_row(line, f"{name}, line {number}")
        first = first_line.setdefault(row["id"], number)
        if first != number:
            raise TraceFileError(
                f"{name}, line {number}: the id {row['id']!r} stands on "
                f"line {first} already. Delete one of the two lines."
            )
        rows.append(row)
    return rows


def check_row(line: str, where: str) -> dict:
    """One parsed line with every field of the right type."""
    try:
        row = json.loads(line)
    except ValueError as error:
        raise TraceFileError(
            f"{where}: not JSON ({error}). The line is broken or cut off; "
            "delete it, and a second run makes that trace again."
        ) from error
    if not isinstance(row, dict):
        raise TraceFileError(f"{where}: expected an object, got {line[:40]}")
    for field, kind in FIELDS.items():
        if type(row.get(field)) is not kind:
            raise TraceFileError(
                f"{where}: field {field!r} is missing or no {kind.__name__}. "
                "This is no trace file of this course; name another file."
            )
    return row


def load_traces(path: Path) -> Any:
    """A trace file as a datasets.Dataset; TraceFileError names the line."""
    from datasets import Dataset

    return Dataset.from_list(read_traces(Path(path)))


def answered(path: Path, problems: list[dict], profile: Profile) -> bool:
    """Whether the file answers the problems, in order, whoever wrote it.

    Any backend and any seed, with the profile's sampling settings. Raises
    TraceFileError for a broken file.
    """
    if not path.exists():
        return False
    wanted = {**asdict(profile.sampling(0)), "seed": None}
    found = [
        (row["id"], row["question"], row["gold"])
        + tuple({**row["sampling"], "seed": None}.get(name) for name in wanted)
        for row in read_traces(path)
    ]
    settings = tuple(wanted.values())
    return found == [
        (problem["id"], problem["question"], problem["answer"], *settings)
        for problem in problems
    ]


def loops(text: str, *, size: int = 8, times: int = 4) -> bool:
    """Whether a run of `size` words comes back `times` times or more."""
    words = text.split()
    runs = Counter(
        tuple(words[i : i + size]) for i in range(len(words) - size + 1)
    )
    return bool(runs) and max(runs.values()) >= times


def faults(row: dict) -> list[str]:
    """What is wrong with one trace, worst first; empty for a sound one."""
    text = row["qwen3_answer"]
    trace = split_trace(text)
    found = {
        "cut by the token limit": row["finish_reason"] == "length",
        "thought not closed": not trace.closed,
        "tags doubled": text.count("<think>") > 1
        or text.count("</think>") > 1,
        "thought empty": trace.closed and not (trace.thinking or "").strip(),
        "answer empty": trace.closed and not trace.answer.strip(),
        "loops": loops(text),
        "wrong answer": not row["correct"],
    }
    return [name for name, holds in found.items() if holds]


def audit_traces(
    rows: Iterable[dict], *, test_questions: Iterable[str] = ()
) -> dict[str, int | float]:
    """Counts of everything that can be wrong, and lengths in tokens."""
    rows = list(rows)
    counts = Counter(fault for row in rows for fault in faults(row))
    lengths = sorted(row["completion_tokens"] for row in rows) or [0]
    test = set(test_questions)
    questions = Counter(row["question"] for row in rows)
    names = (
        "cut by the token limit",
        "thought not closed",
        "tags doubled",
        "thought empty",
        "answer empty",
        "loops",
        "wrong answer",
    )
    return {
        "traces": len(rows),
        "correct": sum(row["correct"] for row in rows),
        **{name: counts[name] for name in names},
        "repeated questions": sum(n - 1 for n in questions.values()),
        "questions of the test": sum(q in test for q in questions),
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
    kept: list[dict] = []
    reasons: Counter[str] = Counter()
    for row in rows:
        found = faults(row)
        if not correct_only:
            found = [fault for fault in found if fault != "wrong answer"]
        if max_tokens is not None and row["completion_tokens"] > max_tokens:
            found.append(f"longer than {max_tokens} tokens")
        if found:
            reasons[found[0]] += 1
        else:
            kept.append(row)
    return kept, reasons


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
    } | asdict(profile.sampling(seed))


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
    world, rank = processes().num_processes, processes().process_index
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
        progress=processes().is_main_process,
    )
    processes().wait_for_everyone()
    if world > 1 and processes().is_main_process:
        merge_parts(path, problems, world)
    processes().wait_for_everyone()
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
        sampling=profile.sampling(),
        batch_size=profile.generation_batch,
        progress="teacher" if progress else None,
    )
