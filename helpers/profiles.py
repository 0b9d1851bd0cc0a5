"""Profiles: the same notebooks at three sizes, from data/profiles.toml.

`DISTILL_PROFILE` chooses one (default `mini`). Any field can be replaced by
an environment variable named `DISTILL_` plus the field in capitals, for
instance `DISTILL_STUDENT=/models/my-gemma` or `DISTILL_TRACES=50`.
"""

from __future__ import annotations

import os
import random
import re
import tomllib
from collections.abc import Mapping
from dataclasses import MISSING, Field, dataclass, field, fields, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from helpers import DEFAULT_SEED, CourseError

ROOT = Path(__file__).resolve().parent.parent
DATA = ROOT / "data"
MODELS, RUNS = DATA / "models", DATA / "runs"
TABLES = tomllib.loads((DATA / "profiles.toml").read_text("utf-8"))
TRACED = (  # what decides the traces
    *("teacher", "problems", "teacher_prompt", "traces"),
    *("sampling_temperature", "top_p", "top_k", "max_new_tokens"),
)
DTYPES = ("float32", "bfloat16", "float16")
SWITCHES = dict.fromkeys(("1", "true", "yes"), True)
SWITCHES |= dict.fromkeys(("0", "false", "no"), False)


@dataclass(frozen=True)
class HubItem:
    """A model or data set; megabytes: its weights or files, to download."""

    revision: str
    licence: str
    megabytes: int


HUB = {name: HubItem(**item) for name, item in TABLES["hub"].items()}


def revision_of(name: str) -> str | None:
    """The pinned revision of a hub id; None for any other id or a folder."""
    return HUB[name].revision if name in HUB else None


def within(low: float, high: float, default: Any = MISSING) -> Any:
    """A field and the range that it is allowed."""
    return field(default=default, metadata={"range": (low, high)})


@dataclass(frozen=True)
class Sampling:
    """How a model writes; temperature 0 is greedy. `asdict` is the record."""

    temperature: float = within(0, 10, default=0.0)
    top_p: float = within(0.01, 1, default=1.0)
    top_k: int = within(0, 1_000_000, default=0)
    max_new_tokens: int = within(1, 1_000_000, default=192)
    seed: int = within(0, 2**32 - 1, default=DEFAULT_SEED)

    def __post_init__(self) -> None:
        for item in fields(self):
            check(item, getattr(self, item.name), item.name)

    def options(self) -> dict[str, Any]:
        """The keyword arguments of transformers' `generate`."""
        options = dict(vars(self))
        del options["seed"]  # torch's, set by the caller
        if self.temperature == 0:
            options |= dict.fromkeys(("temperature", "top_p", "top_k"))
        return options | {"do_sample": self.temperature > 0}


@dataclass(frozen=True)
class Profile:
    """Ids and sizes; nothing here changes which cells of a notebook run.

    Lengths and `max_new_tokens` are tokens, batch sizes are rows. kd_chunk:
    positions whose logits exist at once in logit distillation, 0 for all.
    teacher_evaluation_batch: of the teacher and of kd_student, whose caches
    are larger than the student's. theory_batch: rows trained at once in
    notebook 01. analysis_batch and analysis_length: rows, and tokens of each,
    whose logits or hidden states notebooks 01, 05 and 06 hold at once; longer
    rows are cut there. Raises CourseError for a value that is not allowed.
    """

    name: str
    teacher: str
    student: str
    kd_teacher: str
    kd_student: str
    problems: str
    teacher_prompt: str
    dtype: str
    load_in_4bit: bool
    teacher_in_4bit: bool
    sampling_temperature: float = within(0, 10)
    top_p: float = within(0.01, 1)
    top_k: int = within(0, 1_000_000)
    traces: int = within(1, 1_000_000)
    max_new_tokens: int = within(1, 1_000_000)
    generation_batch: int = within(1, 10_000)
    evaluation_batch: int = within(1, 10_000)
    teacher_evaluation_batch: int = within(1, 10_000)
    max_length: int = within(1, 1_000_000)
    epochs: int = within(1, 1000)
    rank: int = within(1, 1024)
    learning_rate: float = within(1e-8, 1)
    batch_size: int = within(1, 10_000)
    gradient_accumulation: int = within(1, 10_000)
    gradient_checkpointing: bool
    kd_batch_size: int = within(1, 10_000)
    kd_chunk: int = within(0, 1_000_000)
    theory_batch: int = within(1, 10_000)
    analysis_batch: int = within(1, 10_000)
    analysis_length: int = within(2, 1_000_000)
    evaluation: int = within(1, 1_000_000)
    seed: int = within(0, 2**32 - 1)

    def __post_init__(self) -> None:
        for item in fields(self):
            variable = f"DISTILL_{item.name.upper()}"
            check(item, getattr(self, item.name), variable)

    @property
    def traces_path(self) -> Path:
        """Shipped for `mini` as it is, written at run time for all else."""
        shipped = self.name == "mini" and all(
            getattr(self, name) == MINI[name] for name in TRACED
        )
        folder = DATA if shipped else self.run_folder
        return folder / "traces" / "teacher.jsonl"

    @property
    def run_folder(self) -> Path:
        """Where a run of this profile keeps checkpoints; git-ignored."""
        return RUNS / self.name

    @property
    def teacher_batch(self) -> int:
        """Rows at once where the teacher or kd_student is evaluated."""
        return min(self.teacher_evaluation_batch, self.evaluation_batch)

    def sampling(self, seed: int = DEFAULT_SEED) -> Sampling:
        """How the teacher writes traces."""
        card = (self.sampling_temperature, self.top_p, self.top_k)
        return Sampling(*card, self.max_new_tokens, seed)

    @property
    def greedy(self) -> Sampling:
        """How students are evaluated: always the likeliest token."""
        return Sampling(max_new_tokens=self.max_new_tokens)


def check(item: Field, value: Any, typed_as: str) -> None:
    """Raise CourseError unless the field may be `value`.

    A text is refused where a number or a switch is wanted.
    """
    is_text = isinstance(value, str)
    if item.type == "str":
        good = item.name != "dtype" or value in DTYPES
        expected = f"one of {', '.join(DTYPES)}"
        if item.name == "teacher_prompt":
            rest = re.sub("{{|}}|{question}", "", value)
            good = "{question}" in value and not {*rest} & {*"{}"}
            expected = "a text with {question} in it, other braces doubled"
    elif item.type == "bool":
        good, expected = not is_text, "1 or 0"
    else:
        low, high = item.metadata["range"]
        good = not is_text and low <= value <= high  # nan is neither
        which = "a whole number" if item.type == "int" else "a number"
        expected = f"{which} from {low} to {high}"
    if not good:
        raise CourseError(
            f"{typed_as}={value}: expected {expected}. Correct it or unset it."
        )


MINI = TABLES["profiles"]["mini"]  # what a profile does not name is as here
for model in ("teacher", "student", "kd_teacher", "kd_student"):
    MINI[model] = str(MODELS / MINI[model])
NAMES = tuple(MINI)  # every field but `name`
OTHERS = ("profile", "results_dir", "api_key", "no_unsloth", "before_mini",
          "gsm8k")  # fmt: skip
PROFILES = {
    name: Profile(name=name, **MINI | table)
    for name, table in TABLES["profiles"].items()
}


def get_profile(
    name: str | None = None, environment: Mapping[str, str] = os.environ
) -> Profile:
    """The profile in force, environment overrides applied.

    Where bfloat16 is slow, a profile that nobody gave a dtype computes in
    float32. Raises CourseError for an unknown name, for a value that is not
    allowed, and for a variable that looks like a misspelled field.
    """
    name = name or environment.get("DISTILL_PROFILE") or "mini"
    if name not in PROFILES:
        raise CourseError(
            f"unknown profile {name!r}: choose one of {', '.join(PROFILES)}, "
            "for instance DISTILL_PROFILE=mini"
        )
    changes = {}
    for variable, text in environment.items():
        if variable.startswith("DISTILL_") and text:
            key = variable.removeprefix("DISTILL_").lower()
            if key in NAMES:
                changes[key] = convert(key, text)
            else:
                check_spelling(variable, key)
    profile = replace(PROFILES[name], **changes)
    chosen = "dtype" in changes or profile.dtype != "bfloat16"
    if chosen or fast_bfloat16():
        return profile
    return replace(profile, dtype="float32")


def fast_bfloat16(device: str | None = None) -> bool:
    """Whether `device`, or what the machine has, multiplies bfloat16 fast.

    A CPU without AVX-512 takes 60 times as long as in float32, and a GPU
    before Ampere (T4, V100) emulates it: Unsloth and transformers refuse it.
    """
    try:
        import torch
    except ImportError:  # a bare Python, which will not train
        return True
    if device != "cpu" and torch.cuda.is_available():
        return torch.cuda.is_bf16_supported(including_emulation=False)
    mkldnn = torch.backends.mkldnn.is_available()
    return mkldnn and torch.ops.mkldnn._is_mkldnn_bf16_supported()


def check_spelling(variable: str, key: str) -> None:
    """Refuse DISTILL_EPOCH, and what a field was called before."""
    near = get_close_matches(key, NAMES, n=1, cutoff=0.85)
    near = ["sampling_temperature"] if key == "temperature" else near
    if near or key not in OTHERS:
        known = f"DISTILL_{near[0].upper()} is" if near else "see README"
        raise CourseError(
            f"{variable} is not known: {known}. Rename it or unset it."
        )


def convert(name: str, text: str) -> object:
    """An environment variable as its field's type, where it can be."""
    kind = type(MINI[name])
    try:
        return SWITCHES[text.lower()] if kind is bool else kind(text)
    except (KeyError, ValueError):
        return text  # the profile refuses it


def overrides(profile: Profile) -> str:
    """What differs from the profile of that name, as it would be typed.

    For a results file: of a local folder only the name, and not the seed,
    which has a field of its own. Empty for a profile as it is.
    """
    plain, changed = PROFILES.get(profile.name, profile), []
    for name in NAMES:
        value = getattr(profile, name)
        if name != "seed" and value != getattr(plain, name):
            local = isinstance(value, str) and Path(value).is_absolute()
            value = Path(value).name if local else value
            changed.append(f"DISTILL_{name.upper()}={value}")
    return " ".join(changed)


def set_seed(seed: int | None = None) -> int:
    """Seed Python, NumPy and torch; returns the seed that was set."""
    import numpy
    import torch

    seed = Sampling(seed=get_profile().seed if seed is None else seed).seed
    random.seed(seed)
    numpy.random.seed(seed)
    torch.manual_seed(seed)
    return seed
