"""Widgets of the course: sliders that train.

A `Sweep` is a setting and the values that it takes; a `TrainingSlider` trains
one of its points wherever it stops. Pictures travel as PNG bytes in an Image
widget, so they can be updated from the thread that trains while the notebook
stays responsive.
"""

from __future__ import annotations

import html
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import ipywidgets
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from helpers import CourseError
from helpers.distill import Lesson, Objective, pair_profile
from helpers.evaluate import Evaluation, evaluate, wilson_interval
from helpers.features import FeatureTerm
from helpers.models import (
    PROJECTIONS,
    Loaded,
    add_lora,
    load_student,
    load_teacher,
)
from helpers.plots.style import INK, REFERENCE, STUDENT, to_png
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


def chart_png(
    sweep: Sweep, stored: Sequence[Point], live: Sequence[Point]
) -> bytes:
    """Accuracy against the setting as PNG bytes, safe to draw in any thread.

    Grey: the points that ship with the course, all seeds together (`mini`
    alone has some); orange: those trained in this session. Bars are 95%
    Wilson intervals.
    """
    places = {value: float(i) for i, value in enumerate(sweep.values)}

    def fill(drawn: Figure) -> None:
        axes = drawn.subplots()
        groups = (
            ("shipped", stored, REFERENCE, "o--"),
            ("trained here", live, STUDENT, "s"),
        )
        for label, points, colour, style in groups:
            known = [point for point in points if point.x in places]
            if known:
                draw_points(axes, known, places, label, colour, style)
        labels = [f"{value:g}" for value in sweep.values]
        axes.set_xticks(range(len(labels)), labels)
        axes.set(
            xlim=(-0.5, len(labels) - 0.5),
            ylim=(0, 1),
            xlabel=sweep.label,
            ylabel="validation accuracy",
        )
        axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
        if axes.get_legend_handles_labels()[0]:
            axes.legend(loc="best")

    return to_png(fill, size=(7.6, 3.8))


def draw_points(
    axes: Any,
    points: Sequence[Point],
    places: dict[float, float],
    label: str,
    colour: str,
    style: str,
) -> None:
    """One group of points with intervals; the latest of a setting wins."""
    latest = {point.x: point for point in points}
    chosen = [latest[x] for x in sorted(latest)]
    shares = [point.correct / point.n for point in chosen]
    ends = [wilson_interval(point.correct, point.n) for point in chosen]
    low = [share - end[0] for share, end in zip(shares, ends, strict=True)]
    high = [end[1] - share for share, end in zip(shares, ends, strict=True)]
    sizes = sorted({point.n for point in chosen})
    axes.errorbar(
        [places[point.x] for point in chosen],
        shares,
        yerr=[low, high],
        fmt=style,
        color=colour,
        ecolor=INK,
        elinewidth=1.2,
        capsize=4,
        ms=8,
        label=f"{label}, n = {' or '.join(map(str, sizes))} a point",
    )


class TrainingSlider:
    """A slider that re-trains the student at every stop.

    `show()` displays it. Moving the slider starts a short training in the
    background; its accuracy joins the chart when it is done. *Stop* ends the
    training at the next step, and so does moving on. describe: one setting
    in words (HTML), shown at once.
    """

    def __init__(
        self,
        sweep: Sweep,
        profile: Profile,
        *,
        start: float,
        describe: Callable[[float], str],
    ) -> None:
        self.sweep, self.profile = sweep, profile
        self.words = describe
        self.stored = sweep.stored(profile.name)
        self.points: list[Point] = []
        self.worker: threading.Thread | None = None
        self.stopping = threading.Event()
        self.slider = ipywidgets.SelectionSlider(
            options=[(f"{value:g}", value) for value in sweep.values],
            value=start,
            description=sweep.label,
            continuous_update=False,
            style={"description_width": "initial"},
        )
        self.button = ipywidgets.Button(description="Stop", disabled=True)
        self.status = ipywidgets.HTML()
        self.picture = ipywidgets.Image(format="png", width=760)
        self.slider.observe(self.on_move, names="value")
        self.button.on_click(lambda _: self.stopping.set())
        self.report("Move the slider to train a point.")
        self.draw()

    def show(self) -> ipywidgets.VBox:
        """The widget, to be the last value of a cell."""
        controls = ipywidgets.HBox([self.slider, self.button])
        return ipywidgets.VBox([controls, self.status, self.picture])

    def report(self, message: str) -> None:
        """The setting in words and a message, in one line."""
        self.status.value = f"{self.words(self.slider.value)} {message}"

    def draw(self) -> None:
        """Redraw the chart: stored points and live ones."""
        self.picture.value = chart_png(self.sweep, self.stored, self.points)

    def on_move(self, change: dict[str, Any]) -> None:
        """Start a training at the new value, ending one that still runs."""
        self.stopping.set()
        if self.worker is not None:
            self.worker.join()
        self.stopping.clear()
        self.worker = threading.Thread(
            target=self.train, args=(change["new"],), daemon=True
        )
        self.worker.start()

    def train(self, value: float) -> None:
        """One point: train, score, add it to the chart."""
        self.button.disabled = False
        self.report("Loading the student...")
        started = time.perf_counter()

        def on_step(done: int, total: int) -> None:
            seconds = time.perf_counter() - started
            self.report(f"Step {done} of {total}, {seconds:.0f} s.")

        try:
            made = self.sweep.train(
                value,
                profile=self.profile,
                stop=self.stopping.is_set,
                progress=on_step,
            )
            self.finish(made)
        except Exception as error:  # shown where the learner looks
            self.report(f"Training failed: {html.escape(str(error))}")
        finally:
            self.button.disabled = True

    def finish(self, made: Any) -> None:
        """Add a finished point, or say that it was stopped."""
        if made is None:
            self.report("Stopped; no point was added.")
            return
        point, evaluation = made
        self.points.append(point)
        self.report(f"{evaluation.score}, {point.seconds:.0f} s.")
        self.draw()


def rank_explorer(profile: Profile, model: Any) -> TrainingSlider:
    """The LoRA rank slider of notebook 03; `model` is the plain student."""

    def describe(rank: float) -> str:
        count = lora_parameters(model, int(rank), PROJECTIONS)
        return f"rank {rank:g}: <b>{count:,}</b> trainable parameters."

    return TrainingSlider(
        find_sweep("rank"), profile, start=8, describe=describe
    )
