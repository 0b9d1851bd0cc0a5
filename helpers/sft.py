"""Training a student: what it learns, and one way to train it."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from helpers import quiet
from helpers.chat import encode_traces
from helpers.files.disk import alone, write_atomic
from helpers.files.runs import (  # noqa: F401  some are for others
    RunError,
    TrainingRun,
    finish_run,
    finished,
    open_run,
    read_run,
    run_folder,
    save_adapter,
    saving,
)
from helpers.models import Loaded, add_lora, load_student, processes
from helpers.profiles import Profile

SETTINGS = (  # of a profile: they must be equal for a run to be continued
    *("learning_rate", "batch_size", "gradient_accumulation", "epochs"),
    *("max_length", "dtype", "load_in_4bit"),
)


@dataclass(frozen=True)
class TextLesson:
    """What a student is to learn: the text of traces."""

    traces: list[dict]

    def settings(self) -> dict[str, Any]:
        """What decides the lesson, for run.json."""
        texts = [(row["question"], row["qwen3_answer"]) for row in self.traces]
        digest = hashlib.sha256(json.dumps(texts).encode()).hexdigest()
        return {"traces": len(texts), "traces_sha256": digest[:12]}

    def prepare(self, student: Loaded, profile: Profile) -> tuple[Any, Any]:
        """The encoded rows, and what makes their trainer.

        A subclass of TRL's SFTTrainer with options of its own, or None for
        SFTTrainer itself.
        """
        limit = profile.max_length
        rows, dropped = encode_traces(
            self.traces, student.tokenizer, max_length=limit
        )
        if dropped:
            print(f"{dropped} traces longer than {limit} dropped")
        return rows, None

    def trainer(
        self,
        student: Loaded,
        folder: Path | None = None,
        *,
        profile: Profile,
        seed: int = 7,
        progress: bool = True,
    ) -> Any:
        """A trainer for the profile's epochs; no folder, nothing saved.

        It is made in silence. Its `library_changed` names each setting that
        a library changed, as [asked for, in force].
        """
        from transformers import PrinterCallback
        from transformers.trainer_utils import align_special_tokens

        from helpers.trainer import Keeper, SFTTrainer, sft_config

        rows, make = self.prepare(student, profile)
        config = sft_config(profile, folder, rows=len(rows), seed=seed)
        asked = config.to_dict()
        with quiet():
            trainer = (make or SFTTrainer)(
                model=student.model,
                args=config,
                train_dataset=rows,
                processing_class=student.tokenizer,
                callbacks=[Keeper(folder, progress)],
            )
            align_special_tokens(trainer.model, student.tokenizer)
        trainer.library_changed = {
            name: [asked.get(name), value]
            for name, value in trainer.args.to_dict().items()
            if asked.get(name) != value
        }
        trainer.remove_callback(PrinterCallback)
        # TRL casts adapters of a quantized model to bfloat16, but resuming
        # loads them as float32: only so does a resumed run equal an
        # uninterrupted one.
        for parameter in trainer.model.parameters():
            if parameter.requires_grad:
                parameter.data = parameter.data.float()
        return trainer


def train_student(
    traces: Iterable[dict] | TextLesson,
    *,
    profile: Profile,
    run: str = "sft",
    epochs: int | None = None,
    seed: int = 7,
    overwrite: bool = False,
    progress: bool = True,
    student: Loaded | None = None,
) -> TrainingRun:
    """Train the profile's student with QLoRA; returns the run.

    traces: their text is learned; or a lesson (helpers.distill). A killed
    run is continued when it is started again with the same settings; a
    finished one is read back, not trained twice. With `overwrite` an older
    run of that name is deleted first. `student` is a student with adapters;
    by default it is loaded and given the profile's rank.
    """
    lesson = traces
    if not isinstance(lesson, TextLesson):
        lesson = TextLesson(list(traces))
    if epochs is not None:
        profile = replace(profile, epochs=epochs)
    folder = run_folder(profile, run)
    rank = adapter_rank(student.model) if student else profile.rank
    settings = {name: getattr(profile, name) for name in SETTINGS}
    settings |= {"student": Path(profile.student).name, "rank": rank}
    settings |= {"seed": seed, **lesson.settings()}
    with alone(folder, if_only=processes().is_main_process):
        resume = open_run(folder, settings, overwrite)
        if finished(folder):
            return read_run(folder)
        if student is None:
            student = add_lora(load_student(profile), rank=rank, seed=seed)
        trainer = lesson.trainer(
            student, folder, profile=profile, seed=seed, progress=progress
        )
        if processes().is_main_process:
            record = settings | {"library_changed": trainer.library_changed}
            text = json.dumps(record, indent=1, default=str)
            write_atomic(folder / "run.json", text)
        started = time.perf_counter()
        with saving(folder):
            trainer.train(resume_from_checkpoint=resume and str(resume))
            return finish_run(trainer, folder, time.perf_counter() - started)


def adapter_rank(model: Any) -> int | None:
    """The rank of the model's adapters; None where all of it is trained."""
    adapters = getattr(model, "peft_config", None)
    return adapters[model.active_adapter].r if adapters else None
