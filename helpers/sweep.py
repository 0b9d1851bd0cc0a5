"""Accuracy against LoRA rank: one short training and one score a point."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from helpers.commands import command_parser
from helpers.evaluate import Evaluation, evaluate, to_result
from helpers.files import DATA
from helpers.memory import parameter_counts
from helpers.models import add_lora, load_student
from helpers.problems import load_problems
from helpers.profiles import Profile, get_profile
from helpers.result_files import read_results, write_result
from helpers.sft import build_trainer, encode_traces
from helpers.trace_files import filter_traces, load_traces

RANK_RESULTS = DATA / "results" / "rank"
POINT_TRACES, POINT_EPOCHS, POINT_PROBLEMS = 512, 3, 128


@dataclass(frozen=True)
class RankPoint:
    """One point of the chart: accuracy on `n` validation problems."""

    rank: int
    trainable: int
    correct: int
    n: int
    seconds: float


def lora_parameters(model: Any, rank: int, targets: tuple[str, ...]) -> int:
    """Parameters that adapters of `rank` would add: rank * (in + out) each.

    Source: LoRA (arXiv:2106.09685), section 4.1.
    """
    total = 0
    for name, module in model.named_modules():
        if name.rsplit(".", 1)[-1] in targets:
            total += rank * (module.in_features + module.out_features)
    return total


def point_data(profile: Profile) -> tuple[list[dict], list[dict]]:
    """The traces and the validation problems that every point shares."""
    kept, _ = filter_traces(load_traces(profile.traces_path))
    problems = load_problems(
        profile.problems, "validation", limit=POINT_PROBLEMS
    )
    return kept[:POINT_TRACES], problems


def train_point(
    rank: int,
    *,
    profile: Profile,
    seed: int = 7,
    stop: Callable[[], bool] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[RankPoint, Evaluation] | None:
    """Train the 4-bit student at one rank; None when `stop()` became true.

    `progress` is called with (steps done, steps in all) after every step.
    """
    started = time.perf_counter()
    traces, problems = point_data(profile)
    student = add_lora(load_student(profile), rank=rank, seed=seed)
    rows, _ = encode_traces(
        traces, student.tokenizer, max_length=profile.max_length
    )
    trainer = build_trainer(
        student,
        rows,
        None,
        profile=profile,
        epochs=POINT_EPOCHS,
        seed=seed,
        progress=False,
    )
    trainer.add_callback(step_callback(stop, progress))
    trainer.train()
    if stop is not None and stop():
        return None
    evaluation = evaluate(student, problems, profile=profile)
    point = RankPoint(
        rank=rank,
        trainable=parameter_counts(student.model)["trainable"],
        correct=sum(evaluation.correct),
        n=len(problems),
        seconds=time.perf_counter() - started,
    )
    return point, evaluation


def step_callback(
    stop: Callable[[], bool] | None,
    progress: Callable[[int, int], None] | None,
) -> Any:
    """Ends training at the next step when `stop()` says so."""
    from transformers import TrainerCallback

    class StepCallback(TrainerCallback):
        def on_step_end(self, args, state, control, **_):
            if progress is not None:
                progress(state.global_step, state.max_steps)
            control.should_training_stop = bool(stop and stop())

    return StepCallback()


def stored_points(folder: Path = RANK_RESULTS) -> list[RankPoint]:
    """The shipped points, summed over their seeds, in order of rank."""
    points: dict[int, RankPoint] = {}
    for result in read_results(folder):
        rank = int(result.arm.removeprefix("rank_"))
        old = points.get(rank, RankPoint(rank, 0, 0, 0, 0.0))
        points[rank] = replace(
            old,
            correct=old.correct + result.correct,
            n=old.n + result.n,
            seconds=old.seconds + result.seconds,
        )
    return [points[rank] for rank in sorted(points)]


def main(argv: list[str]) -> int:
    """`python3 -m helpers sweep`."""
    parser = command_parser("sweep", __doc__)
    parser.add_argument(
        "--ranks", type=int, nargs="+", default=[1, 2, 4, 8, 16, 32]
    )
    options = parser.parse_args(argv)
    profile = get_profile(options.profile)
    for rank in options.ranks:
        point, evaluation = train_point(
            rank, profile=profile, seed=options.seed
        )
        print(f"rank {rank}: {evaluation.score}, {point.seconds:.0f} s")
        result = to_result(
            f"rank_{rank:02d}",
            [evaluation],
            profile=profile,
            seed=options.seed,
            command=(
                f"python3 -m helpers sweep --ranks {rank} "
                f"--seed {options.seed}"
            ),
        )
        write_result(result, RANK_RESULTS)
    return 0
