"""`doctor`: would the phases of a profile fit, by the planner's estimate.

Standard library only, as helpers.doctor.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from helpers.hub_models import HUB, megabytes_of
from helpers.planner import GIB, PROMPT, PlanError, load_shape, plan_memory
from helpers.profiles import Profile

# A batch that is no setting of its own: the setting that makes it smaller.
SET_BY = {"teacher_batch": "teacher_evaluation_batch"}
WIDE = {"float32": 32, "bfloat16": 16, "float16": 16}
SPARE = 1.0  # GiB for the libraries and CUDA's own context


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


def phases(profile: Profile) -> list[tuple[str, str, str, dict[str, Any]]]:
    """(phase, model, setting of its batch, options of `plan_memory`)."""
    bits = 4 if profile.load_in_4bit else WIDE[profile.dtype]
    training = {
        "bits": bits,
        "rank": profile.rank,
        "length": profile.max_length,
        "checkpointing": profile.gradient_checkpointing,
    }
    asking = {
        "method": "generate",
        "length": PROMPT + profile.max_new_tokens,
        "bits": bits,
    }
    teacher_bits = 4 if profile.teacher_in_4bit else WIDE[profile.dtype]
    taught = asking | {"bits": teacher_bits}
    pair = {"teacher": profile.kd_teacher, "teacher_bits": teacher_bits}
    whole = training | pair | {"method": "logit"}
    chunks = whole | {"method": "logit_chunked", "chunk": profile.kd_chunk}
    student, kd = profile.student, profile.kd_student
    found = [
        ("traces", profile.teacher, "generation_batch", taught),
        ("training", student, "batch_size", training),
        ("evaluation", student, "evaluation_batch", asking),
        ("evaluation, teacher", profile.teacher, "teacher_batch", taught),
        ("evaluation, pair", kd, "teacher_batch", asking),
    ]
    if profile.kd_chunk:
        found.append(("logits, chunked", kd, "kd_batch_size", chunks))
    return [*found, ("logits, at once", kd, "kd_batch_size", whole)]


def measure_phase(
    profile: Profile, model: str, setting: str, options: dict[str, Any]
) -> Callable[[int], float]:
    """GiB that a phase needs, as a function of its rows at once.

    Raises PlanError for a model that cannot be planned.
    """
    shape, options = load_shape(model), dict(options)
    if "teacher" in options:
        options["teacher"] = load_shape(options["teacher"])

    def needs(rows: int) -> float:
        return plan_memory(shape, batch=rows, **options).total / GIB + SPARE

    return needs


Line = tuple[str, str, str, str]  # status, name, text, cure


def fit_lines(profile: Profile, available: float | None) -> Iterator[Line]:
    """A line for each phase; available: GiB, None where there is no GPU."""
    for name, model, setting, options in phases(profile):
        rows = getattr(profile, setting)
        if setting == "kd_batch_size":
            rows = min(rows, profile.batch_size)  # as `pair_profile` does
        try:
            needs = measure_phase(profile, model, setting, options)
            gib = needs(rows)
        except PlanError as error:
            yield "INFO", name, str(error).rstrip("."), ""
            continue
        text = f"{gib:.1f} GiB at most (estimated)"
        if available is None:
            yield "INFO", name, f"{text}, of a GPU", ""
        elif gib <= available:
            yield "OK", name, f"{text}, {available:.1f} are there", ""
        else:
            text += f", {available:.1f} are there"
            fitting = [n for n in range(rows, 0, -1) if needs(n) <= available]
            yield too_large(profile, name, text, setting, fitting)


def too_large(
    profile: Profile, name: str, text: str, setting: str, fitting: list[int]
) -> Line:
    """What to do about a phase that does not fit."""
    if name == "logits, at once":  # one arm of several, none of the mission
        text += "; the cached, mixed and feature arms need that"
        return "INFO", name, text, "a shorter DISTILL_MAX_LENGTH for these"
    if not fitting:
        cure = "use a smaller profile or model, or a larger GPU"
        return "FAIL", name, text, cure
    typed = SET_BY.get(setting, setting).upper()
    cure = f"DISTILL_{typed}={fitting[0]}"
    if setting == "batch_size":
        step = profile.batch_size * profile.gradient_accumulation
        more = -(-step // fitting[0])
        cure += f" with DISTILL_GRADIENT_ACCUMULATION={more}"
    return "FAIL", name, text, f"{cure} fits"


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
