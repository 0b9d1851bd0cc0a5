"""`doctor`: would the phases of a profile fit, by the planner's estimate.

Standard library only, as helpers.doctor.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from helpers.hub_models import HUB, megabytes_of
from helpers.planner import GIB, PROMPT, PlanError, load_shape, plan_memory
from helpers.profiles import Profile

SPARE = 1.0  # GiB for the libraries and CUDA's own context


@dataclass(frozen=True)
class Phase:
    """One step of the course: what it needs, and what makes it smaller."""

    name: str
    gib: float
    setting: str
    fitting: int | None  # the largest value of `setting` that fits


def gpu_memory_gib() -> float | None:
    """Memory of the first GPU by nvidia-smi; None where there is none."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return None
    command = [program, "--query-gpu=memory.total"]
    command += ["--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=10
        )
        return int(done.stdout.splitlines()[0]) / 1024
    except (OSError, ValueError, IndexError, subprocess.TimeoutExpired):
        return None


def phases(profile: Profile, available: float) -> Iterator[Phase]:
    """Traces, training, evaluation and logit distillation of a profile."""
    answer = PROMPT + profile.max_new_tokens
    bits = 4 if profile.teacher_in_4bit else 16
    asking = {"method": "generate", "length": answer}
    training = {
        "bits": 4 if profile.load_in_4bit else 16,
        "rank": profile.rank,
        "length": profile.max_length,
        "checkpointing": profile.gradient_checkpointing,
    }
    logit = {
        "method": "logit_chunked" if profile.kd_chunk else "logit",
        "chunk": profile.kd_chunk or 1,
        "teacher": load_shape(profile.kd_teacher),
        "teacher_bits": bits,
    }
    for name, model, setting, options in (
        (
            "traces",
            profile.teacher,
            "generation_batch",
            asking | {"bits": bits},
        ),
        ("training", profile.student, "batch_size", training),
        (
            "evaluation",
            profile.student,
            "evaluation_batch",
            asking | {"bits": training["bits"]},
        ),
        (
            "logits",
            profile.kd_student,
            "kd_batch_size",
            training | logit,
        ),
    ):
        shape, batch = load_shape(model), getattr(profile, setting)

        def needs(
            rows: int, shape: object = shape, options: dict = options
        ) -> float:
            plan = plan_memory(shape, batch=rows, **options)
            return plan.total / GIB + SPARE

        fits = [n for n in range(batch, 0, -1) if needs(n) <= available]
        yield Phase(name, needs(batch), setting, fits[0] if fits else None)


Line = tuple[str, str, str, str]  # status, name, text, cure


def fit_lines(profile: Profile, available: float | None) -> Iterator[Line]:
    """A line for each phase; available: GiB, None where there is no GPU."""
    try:
        for phase in phases(profile, available or 0.0):
            text = f"{phase.gib:.1f} GiB at most (estimated)"
            if available is None:
                yield "INFO", phase.name, f"{text}, of a GPU", ""
                continue
            text += f", {available:.1f} are there"
            if phase.gib <= available:
                yield "OK", phase.name, text, ""
                continue
            cure = "use a smaller profile or model, or a larger GPU"
            if phase.fitting:
                name = f"DISTILL_{phase.setting.upper()}"
                cure = f"{name}={phase.fitting} fits"
            yield "FAIL", phase.name, text, cure
    except PlanError as error:
        yield "INFO", "memory plan", str(error).rstrip("."), ""


def hub_lines(profile: Profile) -> Iterator[Line]:
    """What has to be downloaded, under which licence, and what is gated."""
    named = [profile.teacher, profile.student, profile.problems]
    named += [profile.kd_teacher, profile.kd_student]
    if any(name in HUB for name in named):
        size = megabytes_of(named) / 1000
        yield "INFO", "downloads", f"{size:.1f} GB from the hub, once", ""
    for name in dict.fromkeys(named):
        if name in HUB:
            text = f"{name}: {HUB[name].licence}"
            yield "INFO", "licence", text, ""
        elif name.startswith("google/gemma"):
            cure = (
                f"accept its licence on huggingface.co/{name} and log in "
                f"with `hf auth login`, or use unsloth/{Path(name).name}"
            )
            yield "INFO", "gated", name, cure
