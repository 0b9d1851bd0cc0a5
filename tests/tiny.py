"""Tiny, randomly initialised models in ordinary folders, for the tests.

They are Qwen3 and Gemma 3 in shape and speak through the mini lab's real
tokenizers; each is made once a session, in a temporary folder.
"""

import atexit
import random
import shutil
import tempfile
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any

from helpers.models import (
    Loaded,
    add_lora,
    load_student,
    load_teacher,
    unsloth_backend,
)

unsloth_backend()  # it wants to be imported before transformers

import torch  # noqa: E402
from transformers import AutoTokenizer, TrainerCallback  # noqa: E402

from helpers import sft  # noqa: E402
from helpers.distill import pair_profile  # noqa: E402
from helpers.profiles import MODELS, PROFILES, Profile  # noqa: E402
from helpers.rebuild import generate_problems, minilab, recipes, texts  # noqa: E402
from helpers.results import Result  # noqa: E402

TEACHER, STUDENT = "mini-qwen3", "mini-gemma3"
SMALL = "mini-qwen3-small"


@cache
def root() -> Path:
    """A temporary folder that goes when the tests end."""
    folder = Path(tempfile.mkdtemp(prefix="distill-tests-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


@cache
def tokenizer(name: str) -> Any:
    """The shipped tokenizer of a mini model."""
    return AutoTokenizer.from_pretrained(MODELS / name)


# Two layers, one of each kind of attention.
tiny_gemma = partial(
    recipes.gemma, hidden=64, inner=128, layers=2, heads=2, window=16
)


@cache
def folder(name: str) -> Path:
    """The folder of a tiny model; its outputs vary, so they can differ."""
    recipe = next(r for r in recipes.RECIPES if r.name == name)
    torch.manual_seed(4)
    if name == STUDENT:
        model = tiny_gemma()
    else:
        model = recipes.qwen(hidden=64, layers=2, heads=2)
    with torch.no_grad():
        for key, weight in model.named_parameters():
            if weight.ndim == 2:
                weight.mul_(10.0 if "embed" in key else 8.0)
    place = root() / name
    tokenizer(name).save_pretrained(place)
    minilab.finish(model, tokenizer(name), place, samples=recipe.teacher)
    return place


def profile(run_folder: Path, **changes: Any) -> Profile:
    """The mini profile on the tiny models, its runs in `run_folder`.

    A profile's runs are in data/runs/<name>: an absolute name leads away.
    """
    small: dict[str, Any] = {
        "teacher": str(folder(TEACHER)),
        "student": str(folder(STUDENT)),
        "kd_student": str(folder(SMALL)),
        "kd_teacher": str(folder(TEACHER)),
        "max_new_tokens": 16,
        "generation_batch": 3,
        "evaluation_batch": 3,
        "batch_size": 4,
        "epochs": 2,
        "rank": 4,
    }
    name = str(run_folder)
    return replace(PROFILES["mini"], name=name, **{**small, **changes})


def pair(run_folder: Path, **changes: Any) -> Profile:
    """`profile` with the tiny one-tokenizer pair as teacher and student."""
    return pair_profile(profile(run_folder, **changes))


@cache
def teacher() -> Loaded:
    """The tiny teacher, for inference alone."""
    return load_teacher(PROFILES["mini"], str(folder(TEACHER)))


@cache
def plain_student() -> Loaded:
    """The tiny student in float32, for inference alone."""
    return load_teacher(PROFILES["mini"], str(folder(STUDENT)))


def student(profile: Profile, rank: int = 4) -> Loaded:
    """The profile's student with adapters that have learned nothing."""
    return add_lora(load_student(profile), rank=rank, seed=7)


def watch(patch: Any, *, stop: int | None = None) -> list[int]:
    """The steps that trainings begin from now on; `stop` kills one there."""
    build, begun = sft.TextLesson.trainer, []

    class Watch(TrainerCallback):
        def on_step_begin(self, args, state, control, **_):
            if state.global_step == stop:
                raise KeyboardInterrupt
            begun.append(state.global_step)

    def build_and_watch(*arguments, **options):
        trainer = build(*arguments, **options)
        trainer.add_callback(Watch())
        return trainer

    patch.setattr(sft.TextLesson, "trainer", build_and_watch)
    return begun


def result(arm: str = "teacher", right: str = "", **changes: Any) -> Result:
    """A result of these answers, 1 a right one; or 3 of 4 without flags."""
    usual = {
        "profile": "mini",
        "seed": 7,
        "n": len(right) or 4,
        "correct": right.count("1") if right else 3,
        "seconds": 1.0,
        "peak_memory_mb": None,
        "command": "python3 -m helpers evaluate",
    }
    return Result(arm, right=right, **usual | changes)


@cache
def worked(count: int, seed: int = 99) -> tuple[Any, ...]:
    """Generated mini problems with their steps."""
    return tuple(generate_problems(count, seed=seed))


def problems(count: int) -> list[dict]:
    """Mini problems as the loaders give them."""
    return [
        {"id": f"tiny-{i:03d}", "question": p.question, "answer": p.answer}
        for i, p in enumerate(worked(count))
    ]


def traces(count: int) -> list[dict]:
    """What a perfect teacher would have answered, as trace rows."""
    rng = random.Random(5)
    return [
        {
            "id": f"tiny-{i:03d}",
            "question": p.question,
            "gold": p.answer,
            "qwen3_answer": texts.thinking_answer(
                p, texts.any_order(p.steps, rng)
            ),
            "finish_reason": "stop",
            "completion_tokens": 60,
            "correct": True,
            "sampling": {},
        }
        for i, p in enumerate(worked(count))
    ]
