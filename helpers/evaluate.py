"""Accuracy with its interval: one prompt, one extractor, every arm.

`free` lets a model answer as its chat template leaves it; `think` forces the
answer to begin with `<think>`, to see whether a model can use a thought.
"""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from helpers import chat
from helpers.answers import extract_answer, is_correct, split_trace
from helpers.commands import command_parser
from helpers.generate import Completion, generate
from helpers.memory import peak_memory_mb, reset_peak
from helpers.models import (
    Loaded,
    ModelError,
    load_adapter,
    load_student,
    load_teacher,
)
from helpers.problems import load_problems
from helpers.profiles import Profile, get_profile, overrides, set_seed
from helpers.result_files import Result, write_result
from helpers.statistics import (
    format_accuracy,
    gap_closed,
    mcnemar,
    wilson_interval,
)

__all__ = [
    "Evaluation",
    "evaluate",
    "format_accuracy",
    "gap_closed",
    "mcnemar",
    "wilson_interval",
]


@dataclass(frozen=True)
class Evaluation:
    """Every answer of one model on one list of problems, in order.

    peak_mib: the most memory in use meanwhile, the model included.
    """

    problems: list[dict]
    completions: list[Completion]
    seconds: float
    peak_mib: float | None = None

    @property
    def correct(self) -> list[bool]:
        """One flag per problem: whether the extracted answer is right."""
        return [
            is_correct(c.text, p["answer"])
            for c, p in zip(self.completions, self.problems, strict=True)
        ]

    @property
    def score(self) -> str:
        """For instance `41.3% (124/300), 95% CI 35.9-47.0`."""
        return format_accuracy(sum(self.correct), len(self.problems))

    @property
    def outcomes(self) -> Counter[str]:
        """Right, wrong, no answer, cut: format failures stand apart."""
        return Counter(
            outcome(c, ok)
            for c, ok in zip(self.completions, self.correct, strict=True)
        )

    @property
    def closed(self) -> int:
        """How many answers opened a thought and closed it."""
        return sum(split_trace(c.text).closed for c in self.completions)

    def part(self, field: str, value: Any) -> tuple[int, int]:
        """(correct, n) over the problems whose `field` equals `value`."""
        flags = [
            ok
            for ok, p in zip(self.correct, self.problems, strict=True)
            if p.get(field) == value
        ]
        return sum(flags), len(flags)


def outcome(completion: Completion, correct: bool) -> str:
    """What became of one answer."""
    if correct:
        return "right"
    if completion.finish_reason == "length":
        return "cut by the token limit"
    if extract_answer(completion.text) is None:
        return "no answer found"
    return "wrong"


def student_prompts(
    problems: list[dict], tokenizer: Any, *, mode: str = "free"
) -> list[str]:
    """Rendered prompts; `mode` is "free" or "think"."""
    if mode not in ("free", "think"):
        raise ValueError(f"mode {mode!r}: choose free or think")
    prompts = [
        chat.render(
            chat.student_messages(p["question"]), tokenizer, generate=True
        )
        for p in problems
    ]
    if mode == "think":
        prompts = [
            p if p.endswith(chat.THINK_OPEN) else p + chat.THINK_OPEN
            for p in prompts
        ]
    return prompts


def evaluate(
    loaded: Loaded,
    problems: list[dict],
    *,
    profile: Profile,
    mode: str = "free",
    batch_size: int | None = None,
    progress: str | None = None,
) -> Evaluation:
    """Answer every problem greedily, in batches of similar length.

    batch_size: rows at once, by default the profile's `evaluation_batch`.
    """
    reset_peak()
    started = time.perf_counter()
    completions = generate(
        loaded.model,
        loaded.tokenizer,
        student_prompts(problems, loaded.tokenizer, mode=mode),
        max_new_tokens=profile.max_new_tokens,
        batch_size=batch_size or profile.evaluation_batch,
        progress=progress,
    )
    seconds = time.perf_counter() - started
    peak = round(peak_memory_mb(), 1)
    return Evaluation(problems, completions, seconds, peak)


def splits_of(*evaluations: Evaluation) -> dict[str, dict[str, int]]:
    """Counts that the results table shows beside the test split."""
    test = evaluations[0]
    correct, n = test.part("impossible", True)
    splits = {"impossible": {"n": n, "correct": correct}} if n else {}
    for other in evaluations[1:]:
        splits["held-out templates"] = {
            "n": len(other.problems),
            "correct": sum(other.correct),
        }
    return splits


def to_result(
    arm: str,
    evaluations: list[Evaluation],
    *,
    profile: Profile,
    seed: int,
    command: str,
    mode: str | None = None,
    notes: str = "",
) -> Result:
    """A results file's content; the first evaluation is the test split.

    Its notes name every setting that is not the profile's own.
    """
    test = evaluations[0]
    peaks = [e.peak_mib for e in evaluations if e.peak_mib is not None]
    return Result(
        arm=arm,
        profile=profile.name,
        seed=seed,
        n=len(test.problems),
        correct=sum(test.correct),
        seconds=round(test.seconds, 1),
        peak_memory_mb=max(peaks, default=None),
        command=command,
        splits=splits_of(*evaluations),
        mode=mode,
        notes=f"{notes} {overrides(profile)}".strip(),
        right="".join(str(int(flag)) for flag in test.correct),
    )


def load_arm(arm: str, profile: Profile, adapter: Path | None) -> Loaded:
    """The model of an arm: the teacher, or the 4-bit student.

    Raises ModelError for an arm of another name without its `adapter`.
    """
    if arm == "teacher":
        return load_teacher(profile)
    if arm == "student_after":
        adapter = adapter or profile.run_folder / "sft" / "final"
    elif arm != "student_before" and adapter is None:
        raise ModelError(
            f"arm {arm!r}: name its checkpoint with --adapter, or choose "
            "teacher, student_before or student_after."
        )
    student = load_student(profile)
    if arm == "student_before":
        return student
    return load_adapter(student, adapter)


def main(argv: list[str]) -> int:
    """`python3 -m helpers evaluate`."""
    parser = command_parser("evaluate", __doc__)
    parser.add_argument("--arm", default="student_after")
    parser.add_argument("--adapter", type=Path, help="a checkpoint folder")
    parser.add_argument(
        "--split", default="test", choices=["validation", "test"]
    )
    parser.add_argument("--mode", default="free", choices=["free", "think"])
    parser.add_argument("--limit", type=int)
    parser.add_argument(
        "--write", action="store_true", help="write a results file"
    )
    options = parser.parse_args(argv)
    profile = get_profile(options.profile)
    set_seed(options.seed)
    loaded = load_arm(options.arm, profile, options.adapter)
    rows = profile.teacher_batch if options.arm == "teacher" else None
    limit = options.limit or profile.evaluation
    sets = [load_problems(profile.problems, options.split, limit=limit)]
    if profile.problems == "mini" and options.split == "test":
        sets.append(load_problems("mini", "held_out", limit=options.limit))
    evaluations = [
        evaluate(
            loaded,
            problems,
            profile=profile,
            mode=options.mode,
            batch_size=rows,
            progress=options.arm,
        )
        for problems in sets
    ]
    print(f"{options.arm} on {options.split}: {evaluations[0].score}")
    print(f"  outcomes: {dict(evaluations[0].outcomes)}")
    print(f"  thoughts closed: {evaluations[0].closed}")
    for name, counts in splits_of(*evaluations).items():
        print(f"  {name}: {format_accuracy(counts['correct'], counts['n'])}")
    if options.write:
        adapter = str(options.adapter)  # a path of this machine: not kept
        chosen = ["ADAPTER" if x == adapter else x for x in argv]
        command = " ".join(["python3 -m helpers evaluate", *chosen])
        result = to_result(
            options.arm,
            evaluations,
            profile=profile,
            seed=options.seed,
            command=command,
        )
        print(f"written: {write_result(result).name}")
    return 0
