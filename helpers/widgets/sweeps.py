"""Settings that can be swept: short trainings at each of a few values.

The slider of helpers.widgets.training trains one point wherever it stops;
`python3 -m helpers sweep` trains all of them.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from helpers import CourseError
from helpers.distill import Lesson, Objective, pair_profile
from helpers.evaluate import Evaluation, evaluate
from helpers.features import FeatureTerm
from helpers.models import Loaded, add_lora, load_student, load_teacher
from helpers.problems import load_problems
from helpers.profiles import DATA, Profile
from helpers.results import read_results
from helpers.sft import build_trainer, encode_traces
from helpers.traces import filter_traces, load_traces

RESULTS = DATA / "results"
POINT_TRACES, POINT_EPOCHS, POINT_PROBLEMS = 384, 3, 128
PAIR_TRACES, PAIR_EPOCHS = 256, 4


@dataclass(frozen=True)
class Point:
    """One point of a chart: accuracy on `n` problems at setting `x`."""

    x: float
    correct: int
    n: int
    seconds: float


Made = tuple[Point, Evaluation] | None
"""A finished point with its answers, or None when it was stopped."""


@dataclass(frozen=True)
class Sweep:
    """A setting, the values it takes, and how one point is made.

    train: called with a value and the keywords profile, seed, stop and
        progress of `train_point`.
    """

    name: str
    label: str
    values: tuple[float, ...]
    train: Callable[..., Made]

    def arm(self, value: float) -> str:
        """The result's name: `rank_16`, `temperature_0_5` for 0.5."""
        return f"{self.name}_{value:g}".replace(".", "_")

    def stored(self, profile: str = "mini") -> list[Point]:
        """A profile's stored points, seeds added up, in order of x."""
        points: dict[float, Point] = {}
        for result in read_results(RESULTS / self.name):
            if result.profile != profile:
                continue
            text = result.arm.removeprefix(f"{self.name}_")
            x = float(text.replace("_", "."))
            old = points.get(x, Point(x, 0, 0, 0.0))
            points[x] = replace(
                old,
                correct=old.correct + result.correct,
                n=old.n + result.n,
                seconds=old.seconds + result.seconds,
            )
        return [points[x] for x in sorted(points)]


def find_sweep(name: str) -> Sweep:
    """The sweep of that name."""
    return SWEEPS[name]


def point_data(profile: Profile) -> tuple[list[dict], list[dict]]:
    """The traces and the validation problems that every point shares."""
    sound, _ = filter_traces(load_traces(profile.traces_path))
    problems = load_problems(
        profile.problems, "validation", limit=POINT_PROBLEMS
    )
    return list(sound)[:POINT_TRACES], problems


def train_point(
    x: float,
    build: Callable[..., tuple[Loaded, Any]],
    *,
    profile: Profile,
    seed: int = 7,
    stop: Callable[[], bool] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Made:
    """Train a fresh student and score it; None when `stop()` became true.

    build: the student and its trainer, from the value, the traces, the
    profile and the seed. `progress` is called with (steps done, steps in all)
    after every step.
    """
    started = time.perf_counter()
    traces, problems = point_data(profile)
    student, trainer = build(x, traces, profile, seed)
    trainer.add_callback(step_callback(stop, progress))
    trainer.train()
    if stop is not None and stop():
        return None
    evaluation = evaluate(student, problems, profile=profile)
    seconds = time.perf_counter() - started
    correct = sum(evaluation.correct)
    return Point(x, correct, len(problems), seconds), evaluation


def rank_trainer(
    rank: float, traces: list[dict], profile: Profile, seed: int
) -> tuple[Loaded, Any]:
    """The 4-bit student of notebook 03 at one rank."""
    if rank < 1 or rank != int(rank):
        raise CourseError(f"rank {rank:g}: use a whole number of 1 or more.")
    student = add_lora(load_student(profile), rank=int(rank), seed=seed)
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
    return student, trainer


def pair_point(
    x: float,
    *,
    objective_at: Callable[[float], Objective],
    profile: Profile,
    **options: Any,
) -> Made:
    """Train the small student on the objective at `x`."""

    def build(
        x: float, traces: list[dict], profile: Profile, seed: int
    ) -> tuple[Loaded, Any]:
        objective = objective_at(x)
        student = add_lora(load_student(profile), rank=profile.rank, seed=seed)
        lesson = Lesson(traces[:PAIR_TRACES], load_teacher(profile), objective)
        return student, lesson.trainer(
            student,
            profile=replace(profile, epochs=PAIR_EPOCHS),
            seed=seed,
            progress=False,
        )

    return train_point(x, build, profile=pair_profile(profile), **options)


def at_temperature(temperature: float) -> Objective:
    """The teacher's logits alone, softened."""
    return Objective(temperature=temperature)


def at_weight(weight: float) -> Objective:
    """The teacher's text, and the states of every block."""
    return Objective(soft=0.0, features=FeatureTerm("even", weight, "cosine"))


SWEEPS = {
    sweep.name: sweep
    for sweep in (
        Sweep(
            "rank",
            "LoRA rank",
            (1, 2, 4, 8, 16, 32),
            partial(train_point, build=rank_trainer),
        ),
        Sweep(
            "temperature",
            "temperature",
            (0.5, 1.0, 1.5, 2.0, 4.0, 8.0),
            partial(pair_point, objective_at=at_temperature),
        ),
        Sweep(
            "weight",
            "feature weight",
            (0.0, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0),
            partial(pair_point, objective_at=at_weight),
        ),
    )
}


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


def train_timed(trainer: Any) -> list[float]:
    """Train; the seconds from the end of each step to the end of the next."""
    ends: list[float] = []
    trainer.add_callback(
        step_callback(None, lambda *_: ends.append(time.perf_counter()))
    )
    trainer.train()
    return [b - a for a, b in zip(ends, ends[1:], strict=False)]
