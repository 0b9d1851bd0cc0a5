"""Accuracy with its interval: one extractor for every arm.

Answers are appended to a file as they come, so that a killed evaluation goes
on where it stopped. torch is imported where a model is asked: the statistics
do without it.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from helpers import CourseError, chat
from helpers.answers import is_correct, outcome, split_trace
from helpers.files.answers import read_answers
from helpers.files.disk import append
from helpers.profiles import Profile, Sampling

if TYPE_CHECKING:
    from helpers.generate import Completion
    from helpers.models import Loaded


def wilson_interval(
    correct: int, total: int, confidence: float = 0.95
) -> tuple[float, float]:
    """Interval of a proportion, both ends between 0 and 1.

    Wilson (1927): unlike the textbook interval it stays inside [0, 1] and is
    honest near 0% and 100%. Raises ValueError for counts that are no score.
    """
    from scipy.stats import binomtest

    test = binomtest(int(correct), int(total))
    low, high = test.proportion_ci(confidence, method="wilson")
    return float(low), float(high)


def mcnemar(before: Sequence[bool], after: Sequence[bool]) -> float:
    """Exact two-sided p-value that two models are equally often right.

    before, after: right or wrong on the *same* problems in the same order.
    Only the problems on which the two disagree carry information: under the
    null hypothesis each falls to either side with probability 1/2
    (McNemar, 1947, in its exact binomial form). No disagreement gives 1.0.
    Raises ValueError when they are not of one length.
    """
    from scipy.stats import binomtest

    pairs = list(zip(map(bool, before), map(bool, after), strict=True))
    won, lost = pairs.count((False, True)), pairs.count((True, False))
    return float(binomtest(won, won + lost).pvalue) if won + lost else 1.0


def compare_arms(first: Any, second: Any) -> tuple[float, ...]:
    """What `second` gains over `first`: the difference, low, high, p-value.

    Both are (seeds, problems), a score each, for the same seeds and problems
    in the same order. A 95% interval for other seeds *and* other problems:
    the variance of a mean clustered both ways (Cameron, Gelbach and Miller
    2011, section 2.2), never below that of one way, and Student's t with
    Satterthwaite's degrees of freedom. One seed says nothing about others:
    then it is for other problems alone. For coverage see its test.
    """
    import numpy as np
    from scipy.stats import t

    pair = [np.atleast_2d(np.asarray(arm, float)) for arm in (first, second)]
    if pair[0].shape != pair[1].shape:
        raise ValueError(f"not the same seeds and problems: {pair[0].shape}")
    gains = pair[1] - pair[0]
    means = [m for m in (gains.mean(0), gains.mean(1)) if len(m) > 1]
    parts = [m.var(ddof=1) / len(m) for m in means]
    both = sum(parts) - gains.var(ddof=1) / gains.size
    variance = max(*parts, both if len(parts) == 2 else 0.0, 1e-30)
    spread = sum(
        v**2 / (len(m) - 1) for v, m in zip(parts, means, strict=True)
    )
    student = t(max(1.0, variance**2 / max(spread, 1e-60)))
    gain, error = gains.mean(), variance**0.5
    margin = error * student.ppf(0.975)
    p_value = 2 * student.sf(abs(gain) / error)
    return tuple(map(float, (gain, gain - margin, gain + margin, p_value)))


def format_accuracy(correct: int, total: int) -> str:
    """As the course writes it: "41.3% (124/300), 95% CI 35.9-47.0"."""
    low, high = wilson_interval(correct, total)
    return (
        f"{correct / total:.1%} ({correct}/{total}), "
        f"95% CI {100 * low:.1f}-{100 * high:.1f}"
    )


def gap_closed(before: float, after: float, teacher: float) -> float:
    """Share of the student's distance to its teacher that training closed.

    before, after, teacher: accuracies in the same unit. 0 is no progress, 1
    is the teacher's level; above 1 or below 0 is possible and kept. Raises
    CourseError when the teacher is no better than the student was before.
    """
    if teacher <= before:
        raise CourseError(
            f"there is no gap to close: the teacher scores {teacher:g} and "
            f"the student {before:g} before training. Check that the two "
            f"are not swapped, or take a stronger teacher."
        )
    return (after - before) / (teacher - before)


@dataclass(frozen=True)
class Evaluation:
    """Every answer of one model on one list of problems, in order.

    seconds: the time to answer them, over all runs that did.
    peak_mib: the most memory in use meanwhile, the model included.
    """

    problems: list[dict]
    completions: list[Completion]
    seconds: float
    peak_mib: float | None = None

    @property
    def correct(self) -> list[bool]:
        """One flag per problem: whether the extracted answer is right."""
        pairs = zip(self.completions, self.problems, strict=True)
        return [is_correct(c.text, p["answer"]) for c, p in pairs]

    @property
    def score(self) -> str:
        """For instance `41.3% (124/300), 95% CI 35.9-47.0`."""
        return format_accuracy(sum(self.correct), len(self.problems))

    @property
    def outcomes(self) -> Counter[str]:
        """Right, wrong, no answer, cut: format failures stand apart."""
        return Counter(map(outcome, self.completions, self.correct))

    @property
    def closed(self) -> int:
        """How many answers opened a thought and closed it."""
        return sum(split_trace(c.text).closed for c in self.completions)

    def part(self, field: str, value: Any) -> list[bool]:
        """The flags of the problems whose `field` equals `value`."""
        pairs = zip(self.correct, self.problems, strict=True)
        return [ok for ok, p in pairs if p.get(field) == value]


def render_prompts(
    problems: list[dict], tokenizer: Any, profile: Profile, mode: str = "free"
) -> list[str]:
    """What a model reads, up to where it speaks.

    mode: "free" is the prompt that students are trained on; "think" makes
    its answer begin with `<think>`, to see whether a model can use a thought;
    "teacher" is the prompt of the traces, in the profile's wording.
    """
    from helpers.traces import teacher_messages

    assert mode in ("free", "think", "teacher"), mode
    prompts = []
    for question in [problem["question"] for problem in problems]:
        messages = chat.student_messages(question)
        if mode == "teacher":
            messages = teacher_messages(question, profile)
        prompt = chat.render(messages, tokenizer, generate=True)
        if mode == "think":
            prompt = prompt.removesuffix(chat.THINK_OPEN) + chat.THINK_OPEN
        prompts.append(prompt)
    return prompts


def evaluate(
    loaded: Loaded,
    problems: list[dict],
    *,
    profile: Profile,
    mode: str = "free",
    sampling: Sampling | None = None,
    batch_size: int | None = None,
    path: Path | None = None,
    progress: str | None = None,
) -> Evaluation:
    """Answer every problem, in batches of similar length.

    mode: of `render_prompts`. sampling: None is greedy; a thinking teacher
    wants its card's settings, `profile.sampling(seed)`. batch_size: rows at
    once, by default the profile's `evaluation_batch`. path: JSON lines that
    keep each answer as it comes; a second run asks for the missing ones only,
    and under `torchrun` each process answers its share into a file beside it.
    progress: names a bar.
    """
    from tqdm.auto import tqdm

    from helpers.generate import Completion, length_batches
    from helpers.models import processes, reset_peak, weights_hash

    sampling = sampling or profile.greedy
    prompts = render_prompts(problems, loaded.tokenizer, profile, mode)
    encoded = [chat.encode_text(text, loaded.tokenizer) for text in prompts]
    batches = length_batches(encoded, batch_size or profile.evaluation_batch)
    model = weights_hash(loaded.model)[:12]
    decides = {"model": model, "sampling": asdict(sampling)}
    answers = read_answers(path, decides) if path else {}
    world = processes().num_processes if path else 1
    rank, share = 0, path
    if world > 1:
        rank = processes().process_index
        share = path.with_name(f"{path.stem}.{rank}of{world}.jsonl")
    reset_peak()
    bar = tqdm(batches, progress, disable=not progress)
    for number, batch in enumerate(bar):
        asked = [prompts[i] for i in batch]
        if number % world != rank or all(text in answers for text in asked):
            continue
        rows = [r | decides for r in ask(loaded, asked, sampling, number)]
        answers |= {row["prompt"]: row for row in rows}
        if share:  # each on a new line, whatever a kill has cut before it
            append(share, "".join("\n" + json.dumps(row) for row in rows))
    if world > 1:
        processes().wait_for_everyone()
        answers = read_answers(path, decides)
    rows = [answers[text] for text in prompts]
    return Evaluation(
        problems,
        [Completion(r["text"], r["tokens"], r["finish_reason"]) for r in rows],
        seconds=sum(row["seconds"] for row in rows),
        peak_mib=max((row["peak_mib"] for row in rows), default=None),
    )


def ask(
    loaded: Loaded, prompts: list[str], sampling: Sampling, number: int
) -> list[dict]:
    """A row each for batch `number`, its seconds a share of the batch's."""
    import torch

    from helpers.generate import generate
    from helpers.models import peak_memory_mb

    if sampling.temperature:  # so that any process writes the same
        torch.manual_seed(sampling.seed * 100_003 + number)
    started = time.perf_counter()
    completions = generate(
        loaded.model,
        loaded.tokenizer,
        prompts,
        sampling=sampling,
        batch_size=len(prompts),
    )
    costs = {
        "seconds": (time.perf_counter() - started) / len(prompts),
        "peak_mib": round(peak_memory_mb(), 1),
    }
    return [
        {"prompt": prompt, **asdict(completion), **costs}
        for prompt, completion in zip(prompts, completions, strict=True)
    ]


def load_arm(arm: str, profile: Profile, adapter: Path | None) -> Loaded:
    """Teacher or 4-bit student; ModelError for an arm without `adapter`."""
    from helpers import models

    if arm in ("teacher", "teacher_sampled"):
        return models.load_teacher(profile)
    if arm == "student_before":
        return models.load_student(profile)
    if arm == "student_after":
        adapter = adapter or profile.run_folder / "sft" / "final"
    if adapter is None:
        raise models.ModelError(
            f"arm {arm!r}: name its checkpoint with --adapter, or choose "
            "teacher, teacher_sampled, student_before or student_after."
        )
    return models.load_adapter(models.load_student(profile), adapter)
