"""Settings that can be swept: short trainings at each of a few values.

The slider of helpers.widgets.training trains one point wherever it stops;
`python3 -m helpers sweep` trains all of them.
"""

import gc
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

from helpers import CourseError
from helpers.distill import Lesson, Objective, pair_profile
from helpers.evaluate import Evaluation, evaluate
from helpers.features import FeatureTerm
from helpers.models import Loaded, add_lora, load_student, load_teacher
from helpers.on_policy import REVERSE, OnPolicyLesson
from helpers.problems import load_problems
from helpers.profiles import DATA, RUNS, Profile
from helpers.results import read_results
from helpers.sft import TextLesson
from helpers.traces import filter_traces, load_traces

SHIPPED = DATA / "results"
ASKED = 128  # validation problems, the same at every point
TEXT_TRACES, TEXT_EPOCHS = 384, 3
PAIR_TRACES, PAIR_EPOCHS = 256, 4
WARM_TRACES, OWN_QUESTIONS = 250, 128  # of the share of own text
# What the rank's slider can change beside the rank; the first is its own.
CHANGES: dict[str, tuple[float, ...]] = {
    "epochs": (TEXT_EPOCHS, 1, 2),
    "alpha / rank": (2.0, 0.5, 1.0, 4.0),
    "rate x": (1.0, 0.25, 0.5, 2.0),  # times the profile's learning rate
}


@dataclass(frozen=True)
class Point:
    """One point of a chart: `correct` of `n` problems at setting `x`."""

    x: float
    correct: int
    n: int


@dataclass(frozen=True)
class Sweep:
    """A setting, and the values it takes.

    objective: what the profile's one-tokenizer pair trains on at a value;
    without it the value is the rank at which the student reads traces.
    """

    name: str
    label: str
    values: tuple[float, ...]
    objective: Callable[[float], Objective] | None = None

    def arm(self, value: float) -> str:
        """The result's name: `rank_16`, `temperature_0_5` for 0.5."""
        return f"{self.name}_{value:g}".replace(".", "_")

    def folder(self, profile: str) -> Path:
        """Where a profile's points lie; those of `mini` ship."""
        results = SHIPPED if profile == "mini" else RUNS / profile / "results"
        return results / self.name

    def stored(self, profile: str = "mini") -> list[Point]:
        """A profile's stored points, seeds added up, in order of x."""
        counts: dict[float, tuple[int, int]] = {}
        for result in read_results(self.folder(profile)):
            if result.profile != profile:
                continue
            text = result.arm.removeprefix(f"{self.name}_")
            x = float(text.replace("_", "."))
            correct, n = counts.get(x, (0, 0))
            counts[x] = correct + result.correct, n + result.n
        return [Point(x, *counts[x]) for x in sorted(counts)]

    def train(
        self,
        value: float,
        *,
        profile: Profile,
        seed: int = 7,
        stop: Callable[[], bool] | None = None,
        progress: Callable[[int, int], None] | None = None,
        changes: Mapping[str, float] | None = None,
    ) -> Evaluation | None:
        """Train a fresh student and score it on validation problems.

        changes: other values than the sweep's, of CHANGES. stop: asked after
        every step; once it is true, training ends and None comes back.
        progress: called with (steps done, steps in all) after every step.
        """
        gc.collect()  # what the last point left in circles
        profile = self.models(profile)
        problems = load_problems(profile.problems, "validation", limit=ASKED)
        student, trainer = self.build(value, profile, seed, changes or {})
        trainer.add_callback(step_callback(stop, progress))
        trainer.train()
        parts: list[Evaluation] = []
        for start in range(0, len(problems), profile.evaluation_batch):
            if stop is not None and stop():
                return None
            part = problems[start : start + profile.evaluation_batch]
            parts.append(evaluate(student, part, profile=profile))
        written = [c for part in parts for c in part.completions]
        seconds = sum(part.seconds for part in parts)
        return Evaluation(problems, written, seconds, parts[-1].peak_mib)

    def models(self, profile: Profile) -> Profile:
        """The profile of the pair that trains."""
        return profile if self.name == "rank" else pair_profile(profile)

    def build(
        self,
        value: float,
        profile: Profile,
        seed: int,
        changes: Mapping[str, float],
    ) -> tuple[Loaded, Any]:
        """A fresh student and the trainer that it gets at `value`."""
        rank = profile.rank if self.objective else value
        if not 1 <= rank < 10**6 or rank != int(rank):
            raise CourseError(f"rank {rank:g}: use a whole number from 1 up.")
        sound, _ = filter_traces(load_traces(profile.traces_path))
        alpha = rank * changes.get("alpha / rank", 2.0)
        student = add_lora(
            load_student(profile), rank=int(rank), alpha=alpha, seed=seed
        )
        lesson = TextLesson(sound[:TEXT_TRACES])
        rate = profile.learning_rate * changes.get("rate x", 1.0)
        epochs = int(changes.get("epochs", TEXT_EPOCHS))
        if self.objective:
            traces, teacher = sound[:PAIR_TRACES], load_teacher(profile)
            lesson = Lesson(traces, teacher, self.objective(value))
            epochs = PAIR_EPOCHS
        profile = replace(profile, learning_rate=rate, epochs=epochs)
        options = {"seed": seed, "progress": False}
        return student, lesson.trainer(student, profile=profile, **options)


@cache
def warm_weights(profile: Profile, seed: int) -> dict[str, Any]:
    """Adapters of a student after two passes over the first traces' logits.

    As in section 1 of notebook 07; the first point of its slider waits for
    them.
    """
    student = add_lora(load_student(profile), rank=profile.rank, seed=seed)
    sound, _ = filter_traces(load_traces(profile.traces_path))
    lesson = Lesson(sound[:WARM_TRACES], load_teacher(profile), Objective())
    twice = replace(profile, epochs=2)
    lesson.trainer(student, profile=twice, seed=seed, progress=False).train()
    state = student.model.state_dict()
    return {name: x.clone() for name, x in state.items() if "lora_" in name}


class ShareSweep(Sweep):
    """The share of own text, for a student that has read traces before."""

    def build(
        self,
        value: float,
        profile: Profile,
        seed: int,
        changes: Mapping[str, float],
    ) -> tuple[Loaded, Any]:
        """The warm student, and new questions at a quarter of the rate."""
        warm = warm_weights(profile, seed)
        student = add_lora(load_student(profile), rank=profile.rank, seed=seed)
        student.model.load_state_dict(warm, strict=False)
        sound, _ = filter_traces(load_traces(profile.traces_path))
        rows = sound[WARM_TRACES : WARM_TRACES + OWN_QUESTIONS]
        lesson = OnPolicyLesson(
            rows, load_teacher(profile), REVERSE, share=value
        )
        gentle = replace(
            profile, epochs=1, learning_rate=profile.learning_rate / 4
        )
        options = {"seed": seed, "progress": False}
        return student, lesson.trainer(student, profile=gentle, **options)


def cosine_states(weight: float) -> Objective:
    """The teacher's text, and the states of every block."""
    return Objective(0.0, features=FeatureTerm("even", weight, "cosine"))


RANKS = (1, 2, 4, 8, 16, 32)
TEMPERATURES = (0.5, 1.0, 1.5, 2.0, 4.0, 8.0)
WEIGHTS = (0.0, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0)
SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)
SWEEPS = {
    "rank": Sweep("rank", "LoRA rank", RANKS),
    "temperature": Sweep(
        "temperature",
        "temperature",
        TEMPERATURES,
        lambda temperature: Objective(temperature=temperature),
    ),
    "weight": Sweep("weight", "feature weight", WEIGHTS, cosine_states),
    "share": ShareSweep("share", "share of own text", SHARES),
}


def find_sweep(name: str) -> Sweep:
    """The sweep of that name."""
    return SWEEPS[name]


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
    return [end - start for start, end in pairwise(ends)]
