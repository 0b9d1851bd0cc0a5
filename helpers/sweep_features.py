"""The weight slider of notebook 06: one short feature training a point."""

from __future__ import annotations

import time
from collections.abc import Callable

from helpers.distill import Objective, pair_profile, pair_trainer
from helpers.features import FeatureTerm
from helpers.models import add_lora, load_student, load_teacher
from helpers.profiles import Profile
from helpers.sweep import Made, Sweep, finish_point, point_data

POINT_TRACES, POINT_EPOCHS = 256, 4


def weight_sweep() -> Sweep:
    """Weight of the cosine loss beside the teacher's text."""
    return Sweep(
        "weight",
        "feature weight",
        (0.0, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0),
        weight_point,
    )


def weight_point(
    weight: float,
    *,
    profile: Profile,
    seed: int = 7,
    stop: Callable[[], bool] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Made:
    """Train the small student at one feature weight; see `rank_point`."""
    started = time.perf_counter()
    profile = pair_profile(profile)
    traces, problems = point_data(profile)
    student = add_lora(load_student(profile), rank=profile.rank, seed=seed)
    term = FeatureTerm("even", weight, "cosine")
    trainer = pair_trainer(
        traces[:POINT_TRACES],
        student,
        load_teacher(profile),
        profile=profile,
        objective=Objective(soft=0.0, features=term),
        epochs=POINT_EPOCHS,
        seed=seed,
        progress=False,
    )
    return finish_point(
        weight,
        trainer,
        student,
        problems,
        profile=profile,
        started=started,
        stop=stop,
        progress=progress,
    )
