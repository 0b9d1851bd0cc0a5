"""helpers.sft: one trainer, checkpoints, exact resume."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from pathlib import Path

import pytest
import tiny
import torch

from helpers import CourseError, sft
from helpers.models import add_lora, load_adapter, load_student
from helpers.sft import RunError, encode_traces, read_run, train_student
from helpers.trainer import sft_config

EPOCHS, ROWS = 3, 12  # 3 steps an epoch


class Killed(Exception):
    """Stands for a kill: nothing after it sft."""


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A profile, an uninterrupted run, and the student that it trained."""
    profile = tiny.profile(
        tmp_path_factory.mktemp("sft"), epochs=EPOCHS, learning_rate=3e-2
    )
    student = add_lora(load_student(profile), rank=4)
    run = train_student(
        tiny.traces(ROWS), profile=profile, student=student, progress=False
    )
    return profile, run, student


def logits(model, tokenizer) -> torch.Tensor:
    """Of one fixed text: (1, tokens, vocab)."""
    ids = torch.tensor([tokenizer("Mia has 12 pens.")["input_ids"]])
    model.eval()
    with torch.no_grad():
        return model(input_ids=ids.to(model.device)).logits.float()


def test_train_student_loss_falls(finished):
    _, run, _ = finished
    losses = [entry["loss"] for entry in run.log]
    assert run.steps == EPOCHS * 3
    assert [entry["step"] for entry in run.log] == list(range(1, 10))
    assert run.final_loss == losses[-1] < losses[0] - 0.4
    assert run.log[-1]["epoch"] == EPOCHS
    assert run.seconds > 0 and run.peak_memory_mb > 0


def test_train_student_keeps_a_checkpoint_per_epoch_and_final(finished):
    _, run, _ = finished
    names = {path.name for path in run.folder.iterdir() if path.is_dir()}
    assert names == {"epoch_1", "epoch_2", "epoch_3", "final"}
    for name in names:
        files = {path.name for path in (run.folder / name).iterdir()}
        assert {
            "adapter_model.safetensors",
            "adapter_config.json",
            "tokenizer.json",
            "chat_template.jinja",
        } <= files
        assert not [f for f in files if f.endswith((".bin", ".pt", ".pth"))]


def test_train_student_learns_an_answer_by_heart(tmp_path):
    profile = tiny.profile(tmp_path, epochs=20, learning_rate=3e-2)
    answer = {"qwen3_answer": "7 7 7 7 7 7 7 7"}
    rows = [{**trace, **answer} for trace in tiny.traces(4)]
    run = train_student(rows, profile=profile, progress=False)
    assert run.steps == 20
    assert run.final_loss < 0.3 * run.log[0]["loss"]


@pytest.mark.parametrize("name", ["final", "epoch_3"])
def test_load_adapter_gives_the_trained_models_logits(finished, name):
    profile, run, student = finished
    trained = logits(student.model, student.tokenizer)
    fresh = load_student(profile)
    untrained = logits(fresh.model, fresh.tokenizer)
    loaded = load_adapter(fresh, run.folder / name)
    assert not loaded.model.training
    again = logits(loaded.model, loaded.tokenizer)
    assert torch.allclose(again, trained, atol=1e-4)
    assert (untrained - trained).abs().max() > 0.1


def test_train_student_epochs_differ(finished):
    profile, run, _ = finished
    first = load_adapter(load_student(profile), run.folder / "epoch_1")
    last = load_adapter(load_student(profile), run.folder / "final")
    a = logits(first.model, first.tokenizer)
    b = logits(last.model, last.tokenizer)
    assert (a - b).abs().max() > 0.05


def watch(monkeypatch, *, stop: int | None = None) -> list[int]:
    """The steps that trainings begin from now on; `stop` kills one there."""
    from transformers import TrainerCallback

    build, begun = sft.build_trainer, []

    class Watch(TrainerCallback):
        def on_step_begin(self, args, state, control, **_):
            if state.global_step == stop:
                raise Killed
            begun.append(state.global_step)

    def build_and_watch(*arguments, **options):
        trainer = build(*arguments, **options)
        trainer.add_callback(Watch())
        return trainer

    monkeypatch.setattr(sft, "build_trainer", build_and_watch)
    return begun


@pytest.mark.parametrize("step", [4, 6])
def test_train_student_resumed_run_equals_an_uninterrupted_one(
    finished, tmp_path, monkeypatch, step
):
    """4 bits, through Unsloth; killed inside and at the end of an epoch."""
    profile, whole, _ = finished
    profile = replace(profile, name=str(tmp_path))

    def train():
        return train_student(
            tiny.traces(ROWS), profile=profile, progress=False
        )

    with monkeypatch.context() as patch:
        watch(patch, stop=step)
        with pytest.raises(Killed):
            train()
    folder = tmp_path / "sft"
    assert not (folder / "final").exists()
    half = folder / "resume" / "checkpoint-9"  # a kill while it was saved
    half.mkdir()
    (half / "adapter_model.safetensors").write_bytes(b"half")
    torch.manual_seed(999)
    random.seed(999)
    begun = watch(monkeypatch)
    resumed = train()
    assert begun == list(range(step // 3 * 3, 9))  # not from the start
    assert resumed.steps == whole.steps
    assert resumed.final_loss == pytest.approx(whole.final_loss, abs=1e-4)
    for now, then in zip(resumed.log, whole.log, strict=True):
        assert now["loss"] == pytest.approx(then["loss"], abs=1e-4)
        assert now["learning_rate"] == then["learning_rate"]
    assert {p.name for p in folder.iterdir()} == {
        p.name for p in whole.folder.iterdir()
    }
    a = load_adapter(load_student(profile), whole.folder / "final")
    b = load_adapter(load_student(profile), resumed.folder / "final")
    difference = logits(a.model, a.tokenizer) - logits(b.model, b.tokenizer)
    assert difference.abs().max() < 1e-4


def test_train_student_killed_before_the_log_is_finished_again(
    finished, tmp_path, monkeypatch
):
    profile, whole, _ = finished
    profile = replace(profile, name=str(tmp_path))

    def train():
        return train_student(
            tiny.traces(ROWS), profile=profile, progress=False
        )

    def die(*_, **__):
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(sft, "finish_run", die)
        with pytest.raises(Killed):
            train()
    resumed = train()
    assert resumed.final_loss == pytest.approx(whole.final_loss, abs=1e-4)
    assert resumed.steps == whole.steps


def test_train_student_finished_run_is_read_back(finished, monkeypatch):
    profile, run, _ = finished
    monkeypatch.setattr(sft, "load_student", None)  # would raise
    again = train_student(tiny.traces(ROWS), profile=profile)
    assert again == run == read_run(run.folder)


def test_train_student_refuses_other_settings(finished):
    profile, run, _ = finished
    before = (run.folder / "run.json").read_bytes()
    other = tiny.traces(ROWS)
    other[3] = {**other[3], "qwen3_answer": "<think>\n1\n</think>\n\n1"}
    for options, named in (
        ({"profile": replace(profile, rank=8)}, "rank"),
        ({"epochs": 4}, "epochs"),
        ({"seed": 8}, "seed"),
        ({"profile": replace(profile, learning_rate=1e-5)}, "learning_rate"),
        ({"profile": replace(profile, load_in_4bit=False)}, "load_in_4bit"),
        ({"traces": other}, "traces_sha256"),
    ):
        arguments = {
            "traces": tiny.traces(ROWS),
            "profile": profile,
            **options,
        }
        with pytest.raises(RunError, match="sft holds a run.*overwrite") as e:
            train_student(**arguments)
        assert repr(named) in str(e.value)
    assert (run.folder / "run.json").read_bytes() == before


def test_run_json_records_the_rank_of_the_adapters_given(tmp_path):
    profile = tiny.profile(tmp_path, epochs=1)
    student = add_lora(load_student(profile), rank=2)
    run = train_student(
        tiny.traces(4), profile=profile, student=student, progress=False
    )
    record = json.loads((run.folder / "run.json").read_text())
    assert (record["rank"], profile.rank) == (2, 4)


def test_run_json_records_what_a_library_changed(tmp_path, monkeypatch):
    """As Unsloth does on a GPU; only what was asked for is compared."""
    import trl

    usual = trl.SFTTrainer.__init__

    def meddle(self, *args, **options):
        options["args"].weight_decay = 0.01
        usual(self, *args, **options)

    def train():
        profile = tiny.profile(tmp_path, epochs=1)
        return train_student(tiny.traces(4), profile=profile, progress=False)

    with monkeypatch.context() as patch:
        patch.setattr(trl.SFTTrainer, "__init__", meddle)
        run = train()
    record = json.loads((run.folder / "run.json").read_text())
    assert record["library_changed"]["weight_decay"] == [0.0, 0.01]
    assert train() == run


def test_train_student_stops_at_a_loss_that_is_no_number(tmp_path):
    profile = tiny.profile(tmp_path, epochs=1)
    student = add_lora(load_student(profile), rank=2)
    for name, weight in student.model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.constant_(weight, float("nan"))
    with pytest.raises(RunError, match="loss is nan at step 1"):
        train_student(
            tiny.traces(8), profile=profile, student=student, progress=False
        )


def test_train_student_overwrite_starts_again(finished, tmp_path):
    profile = replace(finished[0], name=str(tmp_path), epochs=1)
    first = train_student(tiny.traces(4), profile=profile, progress=False)
    (first.folder / "left.txt").touch()
    second = train_student(
        tiny.traces(8), profile=profile, overwrite=True, progress=False
    )
    assert (first.steps, second.steps) == (1, 2)
    assert not (second.folder / "left.txt").exists()


def test_encode_traces_drops_and_counts_what_is_too_long():
    tokenizer = tiny.tokenizer("mini-gemma3")
    rows, dropped = encode_traces(tiny.traces(8), tokenizer, max_length=320)
    assert (len(rows), dropped) == (8, 0)
    lengths = sorted(len(row["input_ids"]) for row in rows)
    limit = lengths[4]
    kept, dropped = encode_traces(tiny.traces(8), tokenizer, max_length=limit)
    assert len(kept) + dropped == 8 and dropped >= 1
    assert max(len(row["input_ids"]) for row in kept) == limit
    whole = {tuple(row["input_ids"]) for row in rows}
    assert all(tuple(row["input_ids"]) in whole for row in kept)


def test_train_student_says_how_many_rows_were_dropped(tmp_path, capsys):
    tokenizer = tiny.tokenizer("mini-gemma3")
    rows, _ = encode_traces(tiny.traces(8), tokenizer, max_length=320)
    limit = sorted(len(row["input_ids"]) for row in rows)[4]
    profile = tiny.profile(tmp_path, epochs=1, max_length=limit)
    run = train_student(tiny.traces(8), profile=profile, progress=False)
    text = capsys.readouterr().out
    assert f"traces longer than {limit} dropped" in text
    assert run.steps == 2


def test_encode_traces_refuses_when_nothing_is_left():
    tokenizer = tiny.tokenizer("mini-gemma3")
    with pytest.raises(CourseError, match="4 were longer than 9.*MAX_LENGTH"):
        encode_traces(tiny.traces(4), tokenizer, max_length=9)
    with pytest.raises(CourseError, match="no trace is left"):
        encode_traces([], tokenizer, max_length=9)


def test_sft_config_is_one_schedule_and_nothing_is_cut(tmp_path):
    profile = tiny.profile(tmp_path, epochs=4, gradient_accumulation=2)
    config = sft_config(profile, tmp_path, rows=100, seed=7)
    assert config.num_train_epochs == 4
    assert config.max_length is None and not config.packing
    assert config.warmup_steps == 13 * 4 // 20
    assert str(config.save_strategy.value) == "epoch"


def test_build_trainer_keeps_adapters_in_float32(tmp_path):
    profile = tiny.profile(tmp_path)
    student = add_lora(load_student(profile), rank=2)
    rows, _ = encode_traces(tiny.traces(4), student.tokenizer, max_length=320)
    trainer = sft.build_trainer(
        student,
        rows,
        tmp_path / "run",
        profile=profile,
        epochs=1,
        seed=7,
        progress=False,
    )
    kinds = {p.dtype for p in trainer.model.parameters() if p.requires_grad}
    assert kinds == {torch.float32}
    assert trainer.args.bf16 is False
    assert trainer.args.gradient_checkpointing is False


# --- the folder of a run -----------------------------------------------------


@pytest.mark.parametrize("name", ["", ".", "..", "../other", "/elsewhere"])
def test_run_folder_stays_inside(tmp_path, name):
    profile = tiny.profile(tmp_path / "here")
    with pytest.raises(RunError, match="plain name"):
        sft.run_folder(profile, name)
    with pytest.raises(RunError):
        train_student([], profile=profile, run=name, overwrite=True)


def test_last_checkpoint_newest_complete_one(tmp_path):
    assert sft.last_checkpoint(tmp_path / "none") is None
    for step in (90, 100, 110):
        place = tmp_path / f"checkpoint-{step}"
        place.mkdir()
        if step < 110:
            state = json.dumps({"global_step": step})
            (place / "trainer_state.json").write_text(state)
    (tmp_path / "checkpoint-110" / "trainer_state.json").write_text('{"glo')
    assert sft.last_checkpoint(tmp_path).name == "checkpoint-100"
    assert not (tmp_path / "checkpoint-110").exists()


def test_read_run_without_a_run(tmp_path):
    with pytest.raises(RunError, match="no finished run.*helpers sft"):
        read_run(tmp_path)


def test_save_adapter_leaves_the_old_one_when_it_fails(tmp_path):
    folder = tmp_path / "final"
    folder.mkdir()
    (folder / "adapter_model.safetensors").write_bytes(b"old")

    class Broken:
        def save_pretrained(self, place, **_):
            Path(place).mkdir()
            raise OSError("No space left on device")

    with pytest.raises(OSError, match="No space"):
        sft.save_adapter(Broken(), Broken(), folder)
    assert (folder / "adapter_model.safetensors").read_bytes() == b"old"
