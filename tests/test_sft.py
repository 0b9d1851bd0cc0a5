"""helpers.sft: one trainer, checkpoints, exact resume."""

import json
import random
import shutil
from dataclasses import replace
from types import SimpleNamespace

import pytest
import tiny
import torch
from safetensors.torch import load_file, save_file

from helpers import CourseError, sft
from helpers.files.disk import alone
from helpers.models import ModelError, load_adapter, load_student
from helpers.sft import RunError, encode_traces, read_run, train_student
from helpers.trainer import sft_config

EPOCHS, ROWS = 3, 12  # 3 steps an epoch


def train(profile, rows=ROWS, **options):
    traces = tiny.traces(rows)
    return train_student(traces, profile=profile, progress=False, **options)


def logits(loaded) -> torch.Tensor:
    """Of one fixed text: (1, tokens, vocab)."""
    ids = torch.tensor([loaded.tokenizer("Mia has 12 pens.")["input_ids"]])
    with torch.no_grad():
        return loaded.model.eval()(input_ids=ids).logits.float()


def checkpoint(run, name):
    """The logits of an untrained student with a saved adapter."""
    student = load_student(tiny.profile(run.folder))
    return logits(load_adapter(student, run.folder / name))


def record(run) -> dict:
    return json.loads((run.folder / "run.json").read_text())


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A profile, an uninterrupted run, and the student that it trained."""
    profile = tiny.profile(
        tmp_path_factory.mktemp("sft"), epochs=EPOCHS, learning_rate=3e-2
    )
    student = tiny.student(profile, rank=4)
    return profile, train(profile, student=student), student


def test_train_student_loss_falls_and_each_epoch_is_saved(finished):
    _, run, _ = finished
    losses = [entry["loss"] for entry in run.log]
    assert run.steps == EPOCHS * 3
    assert [entry["step"] for entry in run.log] == list(range(1, 10))
    assert run.final_loss == losses[-1] < losses[0] - 0.4
    assert run.log[-1]["epoch"] == EPOCHS
    assert run.seconds > 0 and run.peak_memory_mb > 0
    names = {path.name for path in run.folder.iterdir() if path.is_dir()}
    assert names == {"epoch_1", "epoch_2", "epoch_3", "final"}
    needed = {"adapter_model.safetensors", "adapter_config.json"}
    needed |= {"tokenizer.json", "chat_template.jinja"}
    for name in names:
        assert needed <= {file.name for file in (run.folder / name).iterdir()}
    endings = {path.suffix for path in run.folder.rglob("*")}
    assert not endings & {".bin", ".pt", ".pth"}  # pickles


def test_load_adapter_gives_the_trained_models_logits(finished):
    profile, run, student = finished
    trained = logits(student)
    for name in ("final", "epoch_3"):
        assert torch.allclose(checkpoint(run, name), trained, atol=1e-4)
    for other in (checkpoint(run, "epoch_1"), logits(load_student(profile))):
        assert (other - trained).abs().max() > 0.05


@pytest.mark.parametrize("step", [4, 6])
def test_resumed_run_equals_a_whole_one(finished, tmp_path, monkeypatch, step):
    """4 bits, through Unsloth; killed inside and at the end of an epoch."""
    profile, whole, _ = finished
    profile = replace(profile, name=str(tmp_path))
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        tiny.watch(patch, stop=step)
        train(profile)
    folder = tmp_path / "sft"
    assert not (folder / "final").exists()
    half = folder / "resume" / "checkpoint-9"  # a kill while it was saved
    half.mkdir()
    (half / "adapter_model.safetensors").write_bytes(b"half")
    torch.manual_seed(999)
    random.seed(999)
    begun = tiny.watch(monkeypatch)
    resumed = train(profile)
    assert begun == list(range(step // 3 * 3, 9))  # not from the start
    assert resumed.steps == whole.steps
    for now, then in zip(resumed.log, whole.log, strict=True):
        assert now["loss"] == pytest.approx(then["loss"], abs=1e-4)
        assert now["learning_rate"] == then["learning_rate"]
    left = [{p.name for p in x.iterdir()} for x in (folder, whole.folder)]
    assert left[0] == left[1]
    a, b = checkpoint(whole, "final"), checkpoint(resumed, "final")
    assert (a - b).abs().max() < 1e-4


def test_run_killed_before_its_log(finished, tmp_path, monkeypatch):
    profile, whole, _ = finished
    profile = replace(profile, name=str(tmp_path))
    with monkeypatch.context() as patch, pytest.raises(TypeError):
        patch.setattr(sft, "finish_run", None)  # dies there
        train(profile)
    resumed = train(profile)
    assert resumed.final_loss == pytest.approx(whole.final_loss, abs=1e-4)
    assert resumed.steps == whole.steps


def test_train_student_trains_again_where_the_adapter_is_gone(tmp_path):
    """And from the start where it is told to."""
    profile = tiny.profile(tmp_path, epochs=1)
    first = train(profile, rows=4)
    shutil.rmtree(first.folder / "final")
    with alone(first.folder), pytest.raises(CourseError, match="is writing"):
        train(profile, rows=4)
    again = train(profile, rows=4)
    assert (again.folder / "final").exists()
    assert again.final_loss == pytest.approx(first.final_loss, abs=1e-4)
    (first.folder / "mine.txt").touch()
    (first.folder / "epoch_9").mkdir()
    second = train(profile, rows=8, overwrite=True)
    assert (first.steps, second.steps) == (1, 2)
    names = {path.name for path in second.folder.iterdir()}
    assert names == {"run.json", "log.json", "epoch_1", "final", "mine.txt"}


def test_a_loss_or_a_weight_that_is_no_number_is_refused(tmp_path):
    profile = tiny.profile(tmp_path / "runs", epochs=1)
    student = tiny.student(profile, rank=2)
    for name, weight in student.model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.constant_(weight, float("nan"))
    with pytest.raises(RunError, match="loss is nan at step 1"):
        train(profile, rows=8, student=student)
    place = tmp_path / "final"
    with pytest.raises(RunError, match="weight has become NaN.*LEARNING_RATE"):
        sft.finish_run(SimpleNamespace(model=student.model), place, 1.0)
    assert not place.exists()


def test_load_adapter_refuses_weights_that_fit_no_layer(finished, tmp_path):
    profile, run, _ = finished
    folder = shutil.copytree(run.folder / "final", tmp_path / "strange")
    path = folder / "adapter_model.safetensors"
    weights = {k.replace("q_proj", "p_proj"): v
               for k, v in load_file(path).items()}  # fmt: skip
    save_file(weights, path)
    with pytest.raises(ModelError, match="those of another model"):
        load_adapter(load_student(profile), folder)


def test_train_student_finished_run_is_read_back(finished, monkeypatch):
    profile, run, _ = finished
    monkeypatch.setattr(sft, "load_student", None)  # would raise
    assert train(profile) == run == read_run(run.folder)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"rank": 8}, "rank"),
        ({"epochs": 4}, "epochs"),
        ({"learning_rate": 1e-5}, "learning_rate"),
        ({"load_in_4bit": False}, "load_in_4bit"),
        ({}, "seed"),
        ({}, "traces_sha256"),
    ],
)
def test_train_student_refuses_other_settings(finished, changes, named):
    profile, run, _ = finished
    before = record(run)
    traces = tiny.traces(ROWS)
    if named == "traces_sha256":
        traces[3] = {**traces[3], "qwen3_answer": "<think>\n1\n</think>\n\n1"}
    seed = 8 if named == "seed" else 7
    changed = replace(profile, **changes)
    with pytest.raises(RunError, match=f"'{named}'.*overwrite"):
        train_student(traces, profile=changed, seed=seed)
    assert record(run) == before


def test_run_json_records_what_differed(tmp_path, monkeypatch):
    """As Unsloth does on a GPU; only what was asked for is compared."""
    import trl

    usual = trl.SFTTrainer.__init__

    def meddle(self, *args, **options):
        options["args"].weight_decay = 0.01
        usual(self, *args, **options)

    profile = tiny.profile(tmp_path, epochs=1)
    with monkeypatch.context() as patch:
        patch.setattr(trl.SFTTrainer, "__init__", meddle)
        run = train(profile, rows=4)
    assert record(run)["library_changed"]["weight_decay"] == [0.0, 0.01]
    assert train(profile, rows=4) == run
    student = tiny.student(profile, rank=2)
    run = train(profile, rows=4, student=student, overwrite=True)
    assert (record(run)["rank"], profile.rank) == (2, 4)


def test_train_student_drops_and_counts_what_is_too_long(tmp_path, capsys):
    tokenizer = tiny.tokenizer("mini-gemma3")
    rows, dropped = encode_traces(tiny.traces(8), tokenizer, max_length=320)
    assert (len(rows), dropped) == (8, 0)
    limit = sorted(len(row["input_ids"]) for row in rows)[4]
    short, dropped = encode_traces(tiny.traces(8), tokenizer, max_length=limit)
    fitting = [row for row in rows if len(row["input_ids"]) <= limit]
    assert short.to_list() == fitting and dropped == 8 - len(fitting) > 0
    profile = tiny.profile(tmp_path, epochs=1, max_length=limit)
    run = train(profile, rows=8)
    text = capsys.readouterr().out
    assert f"{dropped} traces longer than {limit} dropped" in text
    assert run.steps == 2
    with pytest.raises(CourseError, match="8 were longer than 9.*MAX_LENGTH"):
        encode_traces(tiny.traces(8), tokenizer, max_length=9)


def test_trainer_cuts_nothing_and_adapters_are_float32(tmp_path, monkeypatch):
    # as a launcher's file with bf16 says it to all that it starts
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
    profile = tiny.profile(tmp_path, gradient_accumulation=2, epochs=4)
    config = sft_config(profile, tmp_path, rows=100, seed=7)
    assert config.num_train_epochs == 4
    assert config.max_length is None and not config.packing
    assert config.warmup_steps == 13 * 4 // 20
    lesson = sft.TextLesson(tiny.traces(4))
    trainer = lesson.trainer(tiny.student(profile, rank=2), profile=profile)
    kinds = {p.dtype for p in trainer.model.parameters() if p.requires_grad}
    assert kinds == {torch.float32}
    assert trainer.args.mixed_precision == "no"
    assert not trainer.args.bf16 and not trainer.args.gradient_checkpointing
