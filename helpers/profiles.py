"""Profiles: the same notebooks at three sizes.

`DISTILL_PROFILE` chooses one (default `mini`). Any field can be replaced by
an environment variable named `DISTILL_` plus the field in capitals, for
instance `DISTILL_STUDENT=/models/my-gemma` or `DISTILL_TRACES=50`.
"""

from __future__ import annotations

import os
import random
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from helpers import DEFAULT_SEED, CourseError

ROOT = Path(__file__).resolve().parent.parent
DATA = ROOT / "data"
RUNS = DATA / "runs"


def write_atomic(path: Path, text: str) -> Path:
    """Write `text` beside `path`, flush it to disk, then swap it in.

    Raises OSError with a cure when the disk is full or the folder cannot be
    written; the file that was there before stays as it was.
    """
    draft = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(
            "w", dir=path.parent, encoding="utf-8", newline="\n", delete=False
        ) as handle:
            draft = Path(handle.name)
            handle.write(text)
            handle.flush()
            os.fsync(handle.fileno())
        draft.chmod(0o644)  # a temporary file is for its owner alone
        os.replace(draft, path)
    except OSError as error:
        raise OSError(
            error.errno,
            f"cannot write {path.name}: {error.strerror}. Free some space or "
            "check the folder's permissions; the old file is unchanged",
        ) from error
    finally:
        if draft is not None:
            draft.unlink(missing_ok=True)
    return path


def read_lines(path: Path) -> list[str]:
    """The lines of a JSON-lines file, without what ends them.

    Not `str.splitlines`: that also cuts at U+2028 and U+0085, which JSON
    allows inside a text.
    """
    lines = path.read_text(encoding="utf-8").split("\n")
    return lines[:-1] if lines[-1] == "" else lines


@dataclass(frozen=True)
class HubItem:
    """A model or data set; megabytes: its weights or files, to download."""

    revision: str
    licence: str
    megabytes: int


# Megabytes of models are 2 bytes for each stored parameter (bfloat16); the
# Qwen3 below 4B also store their tied head.
HUB = {
    "Qwen/Qwen3-4B-Thinking-2507": HubItem(
        "768f209d9ea81521153ed38c47d515654e938aea", "Apache-2.0", 8045
    ),
    "Qwen/Qwen3-1.7B": HubItem(
        "70d244cc86ccca08cf5af4e1e306ecf908b1ad5e", "Apache-2.0", 4063
    ),
    "Qwen/Qwen3-0.6B": HubItem(
        "c1899de289a04d12100db370d81485cdf75e47ca", "Apache-2.0", 1503
    ),
    "unsloth/gemma-3-1b-it": HubItem(
        "5b11413a10db4e486ef16a20101fd028f8f2499c",
        "Gemma terms of use, https://ai.google.dev/gemma/terms",
        2000,
    ),
    "unsloth/gemma-3-270m-it": HubItem(
        "23cf460f6bb16954176b3ddcc8d4f250501458a9",
        "Gemma terms of use, https://ai.google.dev/gemma/terms",
        536,
    ),
    "openai/gsm8k": HubItem(
        "e53f048856ff4f594e959d75785d2c2d37b678ee", "MIT", 5
    ),
}


def revision_of(name: str) -> str | None:
    """The pinned revision of a hub id; None for any other id or a folder."""
    return HUB[name].revision if name in HUB else None


def megabytes_of(names: list[str]) -> int:
    """What of these has to be downloaded, each once; folders count nothing."""
    return sum(HUB[name].megabytes for name in set(names) if name in HUB)


MODELS = DATA / "models"
BOXED = (
    "{question}\nPlease reason step by step, and put your final answer "
    "within \\boxed{{}}. If it has no solution, put no solution there."
)

TRACED = (  # what decides the traces
    *("teacher", "problems", "teacher_prompt", "traces"),
    *("sampling_temperature", "top_p", "top_k", "max_new_tokens"),
)
SWITCHES = {"1": True, "true": True, "yes": True} | {
    "0": False,
    "false": False,
    "no": False,
}


@dataclass(frozen=True)
class Sampling:
    """How a model writes; temperature 0 is greedy. `asdict` is the record."""

    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    max_new_tokens: int = 160
    seed: int = 7

    def options(self) -> dict[str, Any]:
        """The keyword arguments of transformers' `generate`."""
        greedy = self.temperature == 0
        return {
            "do_sample": not greedy,
            "temperature": None if greedy else self.temperature,
            "top_p": None if greedy else self.top_p,
            "top_k": None if greedy else self.top_k,
            "max_new_tokens": self.max_new_tokens,
        }


@dataclass(frozen=True)
class Profile:
    """Ids and sizes; nothing here changes which cells of a notebook run.

    Lengths and `max_new_tokens` are tokens, batch sizes are rows. kd_chunk:
    positions whose logits exist at once in logit distillation, 0 for all.
    teacher_evaluation_batch: of the teacher and of kd_student, whose caches
    are larger than the student's. theory_batch: rows trained at once in
    notebook 01. analysis_batch and analysis_length: rows, and tokens of each,
    whose logits or hidden states notebooks 01, 05 and 06 hold at once; longer
    rows are cut there.
    """

    name: str
    teacher: str
    student: str
    kd_teacher: str
    kd_student: str
    problems: str
    teacher_prompt: str
    dtype: str
    load_in_4bit: bool = True
    teacher_in_4bit: bool = False
    sampling_temperature: float = 0.6
    top_p: float = 0.95
    top_k: int = 20
    traces: int = 1200
    max_new_tokens: int = 160
    generation_batch: int = 64
    evaluation_batch: int = 256
    teacher_evaluation_batch: int = 256
    max_length: int = 320
    epochs: int = 4
    rank: int = 16
    learning_rate: float = 4e-3
    batch_size: int = 16
    gradient_accumulation: int = 1
    gradient_checkpointing: bool = False
    kd_batch_size: int = 16
    kd_chunk: int = 0
    theory_batch: int = 8
    analysis_batch: int = 32
    analysis_length: int = 320
    evaluation: int = 600
    seed: int = 7

    @property
    def traces_path(self) -> Path:
        """Shipped for `mini` as it is, written at run time for all else."""
        own = PROFILES.get("mini", self)
        shipped = self.name == "mini" and all(
            getattr(self, name) == getattr(own, name) for name in TRACED
        )
        folder = DATA if shipped else RUNS / self.name
        return folder / "traces" / "teacher.jsonl"

    @property
    def teacher_batch(self) -> int:
        """Rows at once where the teacher or kd_student is evaluated."""
        return min(self.teacher_evaluation_batch, self.evaluation_batch)

    def sampling(self, seed: int = DEFAULT_SEED) -> Sampling:
        """How the teacher writes traces."""
        return Sampling(
            temperature=self.sampling_temperature,
            top_p=self.top_p,
            top_k=self.top_k,
            max_new_tokens=self.max_new_tokens,
            seed=seed,
        )

    @property
    def greedy(self) -> Sampling:
        """How students are evaluated: always the likeliest token."""
        return Sampling(max_new_tokens=self.max_new_tokens)

    @property
    def run_folder(self) -> Path:
        """Where a run of this profile keeps checkpoints; git-ignored."""
        return RUNS / self.name


PROFILES = {
    "mini": Profile(
        name="mini",
        teacher=str(MODELS / "mini-qwen3"),
        student=str(MODELS / "mini-gemma3"),
        kd_teacher=str(MODELS / "mini-qwen3"),
        kd_student=str(MODELS / "mini-qwen3-small"),
        problems="mini",
        teacher_prompt="Question: {question}",
        dtype="float32",
    ),
    # Gemma is gated on the hub: google/gemma-3-* wants an accepted licence
    # and a token. The unsloth/* mirrors are the same weights, ungated.
    "laptop": Profile(
        name="laptop",
        teacher="Qwen/Qwen3-0.6B",
        student="unsloth/gemma-3-270m-it",
        kd_teacher="Qwen/Qwen3-1.7B",
        kd_student="Qwen/Qwen3-0.6B",
        problems="openai/gsm8k",
        teacher_prompt=BOXED,
        dtype="bfloat16",
        traces=500,
        max_new_tokens=2048,
        generation_batch=8,
        evaluation_batch=8,
        teacher_evaluation_batch=8,
        max_length=2560,
        learning_rate=2e-4,
        batch_size=4,
        gradient_accumulation=4,
        gradient_checkpointing=True,
        kd_batch_size=1,
        kd_chunk=256,
        theory_batch=1,
        analysis_batch=1,
        analysis_length=256,
        evaluation=200,
    ),
    "full": Profile(
        name="full",
        teacher="Qwen/Qwen3-4B-Thinking-2507",
        student="unsloth/gemma-3-1b-it",
        kd_teacher="Qwen/Qwen3-4B-Thinking-2507",
        kd_student="Qwen/Qwen3-0.6B",
        problems="openai/gsm8k",
        teacher_prompt=BOXED,
        dtype="bfloat16",
        teacher_in_4bit=True,
        traces=7000,
        max_new_tokens=8192,
        generation_batch=12,  # of full length: 24 GB, to 16 bits too
        evaluation_batch=64,
        teacher_evaluation_batch=12,
        max_length=4096,
        learning_rate=2e-4,
        batch_size=4,
        gradient_accumulation=4,
        gradient_checkpointing=True,
        kd_batch_size=1,
        kd_chunk=256,
        theory_batch=1,
        analysis_batch=2,
        analysis_length=512,
        evaluation=1319,
    ),
}


def get_profile(
    name: str | None = None, environment: Mapping[str, str] = os.environ
) -> Profile:
    """The profile in force, environment overrides applied.

    Raises CourseError for an unknown name or an override of the wrong type.
    """
    name = name or environment.get("DISTILL_PROFILE") or "mini"
    if name not in PROFILES:
        known = ", ".join(PROFILES)
        raise CourseError(
            f"unknown profile {name!r}: choose one of {known}, for instance "
            "DISTILL_PROFILE=mini"
        )
    if "DISTILL_TEMPERATURE" in environment:
        raise CourseError(
            "DISTILL_TEMPERATURE is now DISTILL_SAMPLING_TEMPERATURE (of the "
            "teacher's traces, not of distillation). Rename it or unset it."
        )
    profile = PROFILES[name]
    changes = {}
    for field in fields(Profile):
        text = environment.get(f"DISTILL_{field.name.upper()}")
        if text and field.name != "name":
            old = getattr(profile, field.name)
            changes[field.name] = parse_override(field.name, text, type(old))
    return replace(profile, **changes)


def overrides(profile: Profile) -> str:
    """What differs from the profile of that name, as it would be typed.

    For a results file: of a local folder only the name, and not the seed,
    which has a field of its own. Empty for a profile as it is.
    """
    own = PROFILES.get(profile.name, profile)
    changed = []
    for field in fields(Profile):
        value = getattr(profile, field.name)
        if field.name == "seed" or value == getattr(own, field.name):
            continue
        if isinstance(value, str) and Path(value).is_absolute():
            value = Path(value).name
        changed.append(f"DISTILL_{field.name.upper()}={value}")
    return " ".join(changed)


def parse_override(name: str, text: str, kind: type) -> object:
    """An environment variable as the field's own type."""
    try:
        return SWITCHES[text.lower()] if kind is bool else kind(text)
    except (KeyError, ValueError) as error:
        wanted = {bool: "1 or 0", int: "a whole number", float: "a number"}
        raise CourseError(
            f"DISTILL_{name.upper()}={text!r}: expected {wanted[kind]}. "
            "Correct the environment variable or unset it."
        ) from error


def set_seed(seed: int | None = None) -> int:
    """Seed Python, NumPy and torch; returns the seed that was set."""
    import numpy
    import torch

    chosen = int(os.environ.get("DISTILL_SEED", 7)) if seed is None else seed
    random.seed(chosen)
    numpy.random.seed(chosen)
    torch.manual_seed(chosen)
    return chosen
