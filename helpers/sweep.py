"""Accuracy against one setting: a short training and a score a point.

The widgets train one point at a time; `python3 -m helpers sweep` makes the
points that ship with the course.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib import import_module
from typing import Any

from helpers.commands import command_parser
from helpers.evaluate import Evaluation, evaluate, to_result
from helpers.files import DATA
from helpers.models import Loaded, add_lora, load_student
from helpers.problems import load_problems
from helpers.profiles import Profile, get_profile
from helpers.result_files import read_results, write_result
from helpers.sft import build_trainer, encode_traces
from helpers.trace_files import filter_traces, load_traces

RESULTS = DATA / "results"
POINT_TRACES, POINT_EPOCHS, POINT_PROBLEMS = 384, 3, 128


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
        progress of `rank_point`.
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
    """The sweep of that name; its module is imported only now."""
    return getattr(import_module(SWEEPS[name]), f"{name}_sweep")()


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
    return list(kept)[:POINT_TRACES], problems


def rank_sweep() -> Sweep:
    """LoRA rank, the student of notebook 03."""
    return Sweep("rank", "LoRA rank", (1, 2, 4, 8, 16, 32), rank_point)


def rank_point(
    rank: float,
    *,
    profile: Profile,
    seed: int = 7,
    stop: Callable[[], bool] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Made:
    """Train the 4-bit student at one rank; None when `stop()` became true.

    `progress` is called with (steps done, steps in all) after every step.
    """
    started = time.perf_counter()
    traces, problems = point_data(profile)
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
    return finish_point(
        rank,
        trainer,
        student,
        problems,
        profile=profile,
        started=started,
        stop=stop,
        progress=progress,
    )


def finish_point(
    x: float,
    trainer: Any,
    student: Loaded,
    problems: list[dict],
    *,
    profile: Profile,
    started: float,
    stop: Callable[[], bool] | None,
    progress: Callable[[int, int], None] | None,
) -> Made:
    """Train until the end or until `stop()`, then score."""
    trainer.add_callback(step_callback(stop, progress))
    trainer.train()
    if stop is not None and stop():
        return None
    evaluation = evaluate(student, problems, profile=profile)
    seconds = time.perf_counter() - started
    correct = sum(evaluation.correct)
    return Point(x, correct, len(problems), seconds), evaluation


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


SWEEPS = {
    "rank": "helpers.sweep",
    "temperature": "helpers.sweep_kd",
    "weight": "helpers.sweep_kd",
}


def main(argv: list[str]) -> int:
    """`python3 -m helpers sweep`."""
    parser = command_parser("sweep", __doc__)
    parser.add_argument("what", nargs="?", default="rank", choices=SWEEPS)
    parser.add_argument("--values", type=float, nargs="+")
    options = parser.parse_args(argv)
    profile = get_profile(options.profile)
    sweep = find_sweep(options.what)
    for value in options.values or sweep.values:
        point, evaluation = sweep.train(
            value, profile=profile, seed=options.seed
        )
        name = f"{sweep.label} {value:g}"
        print(f"{name}: {evaluation.score}, {point.seconds:.0f} s", flush=True)
        command = f"python3 -m helpers sweep {sweep.name} --values {value:g}"
        result = to_result(
            sweep.arm(value),
            [evaluation],
            profile=profile,
            seed=options.seed,
            command=f"{command} --seed {options.seed}",
        )
        write_result(result, RESULTS / sweep.name)
    return 0
