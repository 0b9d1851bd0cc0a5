"""The sliders of notebooks 05 and 06: one short training of the pair a point.

They differ in nothing but the objective that a value stands for.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

from helpers.distill import Objective, pair_profile, pair_trainer
from helpers.features import FeatureTerm
from helpers.models import add_lora, load_student, load_teacher
from helpers.profiles import Profile
from helpers.sweep import Made, Sweep, finish_point, point_data

POINT_TRACES, POINT_EPOCHS = 256, 4


def temperature_sweep() -> Sweep:
    """Temperature of the soft targets, the one-tokenizer pair."""
    return Sweep(
        "temperature",
        "temperature",
        (0.5, 1.0, 1.5, 2.0, 4.0, 8.0),
        partial(pair_point, objective_at=at_temperature),
    )


def weight_sweep() -> Sweep:
    """Weight of the cosine loss of hidden states beside the teacher's text."""
    return Sweep(
        "weight",
        "feature weight",
        (0.0, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0),
        partial(pair_point, objective_at=at_weight),
    )


def at_temperature(temperature: float) -> Objective:
    """The teacher's logits alone, softened."""
    return Objective(temperature=temperature)


def at_weight(weight: float) -> Objective:
    """The teacher's text, and the states of every block."""
    return Objective(soft=0.0, features=FeatureTerm("even", weight, "cosine"))


def pair_point(
    x: float,
    *,
    objective_at: Callable[[float], Objective],
    profile: Profile,
    seed: int = 7,
    stop: Callable[[], bool] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Made:
    """Train the small student on the objective at `x`; see `rank_point`."""
    started = time.perf_counter()
    profile = pair_profile(profile)
    traces, problems = point_data(profile)
    student = add_lora(load_student(profile), rank=profile.rank, seed=seed)
    trainer = pair_trainer(
        traces[:POINT_TRACES],
        student,
        load_teacher(profile),
        profile=profile,
        objective=objective_at(x),
        epochs=POINT_EPOCHS,
        seed=seed,
        progress=False,
    )
    return finish_point(
        x,
        trainer,
        student,
        problems,
        profile=profile,
        started=started,
        stop=stop,
        progress=progress,
    )
