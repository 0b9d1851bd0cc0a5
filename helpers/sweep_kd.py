"""The temperature slider of notebook 05: one short logit training a point."""

from __future__ import annotations

import time
from collections.abc import Callable

from helpers.distill import Objective, pair_profile, pair_trainer
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
        temperature_point,
    )


def temperature_point(
    temperature: float,
    *,
    profile: Profile,
    seed: int = 7,
    stop: Callable[[], bool] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Made:
    """Train the small student at one temperature; see `rank_point`."""
    started = time.perf_counter()
    profile = pair_profile(profile)
    traces, problems = point_data(profile)
    student = add_lora(load_student(profile), rank=profile.rank, seed=seed)
    trainer = pair_trainer(
        traces[:POINT_TRACES],
        student,
        load_teacher(profile),
        profile=profile,
        objective=Objective(temperature=temperature),
        epochs=POINT_EPOCHS,
        seed=seed,
        progress=False,
    )
    return finish_point(
        temperature,
        trainer,
        student,
        problems,
        profile=profile,
        started=started,
        stop=stop,
        progress=progress,
    )
