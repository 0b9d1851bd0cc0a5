"""Accuracy with its interval: one prompt, one extractor, every arm.

`free` lets a model answer as its chat template leaves it; `think` forces the
answer to begin with `<think>`, to see whether a model can use a thought.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from helpers import chat
from helpers.answers import extract_answer, is_correct, split_trace
from helpers.generate import Completion, generate
from helpers.models import (
    Loaded,
    ModelError,
    load_adapter,
    load_student,
    load_teacher,
    peak_memory_mb,
    reset_peak,
)
from helpers.profiles import Profile


class Scored:
    """Base of what has `n` problems, `correct` of them answered rightly."""

    n: int
    correct: int

    @property
    def accuracy(self) -> float:
        """Share of correct answers, 0 to 1."""
        return self.correct / self.n

    @property
    def interval(self) -> tuple[float, float]:
        """95% Wilson interval of the accuracy, 0 to 1."""
        return wilson_interval(self.correct, self.n)


def wilson_interval(
    correct: int, total: int, confidence: float = 0.95
) -> tuple[float, float]:
    """Interval of a proportion, both ends between 0 and 1.

    Wilson (1927), "Probable inference, the law of succession, and
    statistical inference": unlike the textbook interval it stays inside
    [0, 1] and is honest near 0% and 100%.

    Raises:
        ValueError: total < 1, or correct outside 0..total.
    """
    from scipy.stats import binomtest

    _require_count(correct, total)
    test = binomtest(int(correct), int(total))
    low, high = test.proportion_ci(confidence, method="wilson")
    return float(low), float(high)


def mcnemar(before: Sequence[bool], after: Sequence[bool]) -> float:
    """Exact two-sided p-value that two models are equally often right.

    before, after: right or wrong on the *same* problems in the same order.
    Only the problems on which the two disagree carry information: under the
    null hypothesis each falls to either side with probability 1/2
    (McNemar, 1947, in its exact binomial form). No disagreement gives 1.0.

    Raises:
        ValueError: the two do not have the same length, or are empty.
    """
    from scipy.stats import binomtest

    if len(before) != len(after) or len(before) == 0:
        raise ValueError(
            f"a paired test needs the same problems twice, but there are "
            f"{len(before)} results before and {len(after)} after: evaluate "
            f"both models on one list of problems."
        )
    pairs = [
        (bool(one), bool(two)) for one, two in zip(before, after, strict=True)
    ]
    won, lost = pairs.count((False, True)), pairs.count((True, False))
    if won + lost == 0:
        return 1.0
    return float(binomtest(won, won + lost, 0.5).pvalue)


def format_accuracy(correct: int, total: int) -> str:
    """An accuracy as the course writes it, with its n and its interval.

    format_accuracy(124, 300) gives "41.3% (124/300), 95% CI 35.9-47.0".
    The interval is Wilson's, in percent with one decimal.

    Raises:
        ValueError: total < 1, or correct outside 0..total.
    """
    low, high = wilson_interval(correct, total)
    return (
        f"{correct / total:.1%} ({correct}/{total}), "
        f"95% CI {100 * low:.1f}-{100 * high:.1f}"
    )


def gap_closed(before: float, after: float, teacher: float) -> float:
    """Share of the student's distance to its teacher that training closed.

    before, after, teacher: accuracies in the same unit. 0 is no progress, 1
    is the teacher's level; above 1 or below 0 is possible and kept.

    Raises:
        ValueError: the teacher is no better than the student was before.
    """
    if teacher <= before:
        raise ValueError(
            f"there is no gap to close: the teacher scores {teacher:g} and "
            f"the student {before:g} before training. Check that the two "
            f"are not swapped, or take a stronger teacher."
        )
    return (after - before) / (teacher - before)


def _require_count(correct: int, total: int) -> None:
    if total < 1 or not 0 <= correct <= total:
        raise ValueError(
            f"{correct} correct of {total} is not a score: count at least "
            f"one problem, and between 0 and {max(total, 0)} correct ones."
        )


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
        sampling=profile.greedy,
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
