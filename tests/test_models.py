"""helpers.models and helpers.models: loaded as asked, or a clear refusal."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import tiny
import torch

from helpers import models
from helpers.models import (
    ModelError,
    add_lora,
    load_adapter,
    load_student,
    load_teacher,
    parameter_counts,
    peak_memory_mb,
    quantized_layers,
    weight_bytes,
)
from helpers.profiles import HUB, ROOT

LAYERS, TARGETS = 2, 7
FALLBACK = """
import json, sys
from dataclasses import replace
from pathlib import Path
sys.path.insert(0, "tests")
import tiny
from helpers.models import add_lora, load_student, quantized_layers
from helpers.sft import train_student
profile = tiny.profile(Path(sys.argv[1]), epochs=1)
student = load_student(profile)
layers = quantized_layers(student.model)
student = add_lora(student, rank=4)
run = train_student(
    tiny.traces(8), profile=profile, student=student, progress=False
)
print(json.dumps({
    "type": type(student).__name__,
    "backend": student.backend,
    "layers": layers,
    "unsloth": "unsloth" in sys.modules,
    "steps": run.steps,
    "loss": run.final_loss,
    "files": sorted(p.name for p in run.folder.iterdir()),
}))
"""


@pytest.fixture(scope="module")
def profile(tmp_path_factory):
    return tiny.profile(tmp_path_factory.mktemp("models"))


def copy(source: Path, target: Path, *, without: str = "") -> Path:
    """A model folder again, one of its files left out."""
    target.mkdir()
    for file in source.iterdir():
        if file.name != without:
            (target / file.name).write_bytes(file.read_bytes())
    return target


def test_load_student_goes_through_unsloth_in_4_bit(profile):
    student = load_student(profile)
    assert student.backend.startswith("unsloth 20")
    assert student.backend.endswith("(CPU)" if not cuda() else "(GPU)")
    assert quantized_layers(student.model) == LAYERS * TARGETS
    parameter = student.model.model.layers[0].mlp.up_proj.weight
    assert parameter.quant_state.quant_type == "nf4"
    assert parameter.quant_state.nested  # double quantization
    ids = student.tokenizer("a b c")["input_ids"]
    assert ids == tiny.tokenizer("mini-gemma3")("a b c")["input_ids"]
    shipped = tiny.tokenizer("mini-gemma3").chat_template
    assert student.tokenizer.chat_template == shipped


def cuda() -> bool:
    return torch.cuda.is_available()


def test_load_student_without_4_bit(tmp_path):
    profile = tiny.profile(tmp_path, load_in_4bit=False)
    student = load_student(profile)
    assert quantized_layers(student.model) == 0
    assert {p.dtype for p in student.model.parameters()} == {torch.float32}


def test_load_student_4_bit_stays_close_to_the_original(profile):
    """Quantized weights are near the originals, and not equal to them."""
    student = load_student(profile).model
    original = tiny.plain_student().model
    from bitsandbytes.functional import dequantize_4bit

    packed = student.model.layers[1].mlp.gate_proj.weight
    weight = original.model.layers[1].mlp.gate_proj.weight
    restored = dequantize_4bit(packed.data, packed.quant_state)
    error = (restored.float() - weight).abs().mean() / weight.abs().mean()
    assert 0.01 < error < 0.15


def test_load_student_says_when_nothing_could_be_quantized(
    profile, monkeypatch
):
    monkeypatch.setattr(models, "quantized_layers", lambda _: 0)
    with pytest.raises(ModelError, match="no layer is quantized.*4BIT=0"):
        load_student(profile)


def test_load_student_refuses_a_thinking_teacher(profile):
    with pytest.raises(ModelError, match="mini-qwen3 is a thinking teacher"):
        load_student(profile, profile.teacher)


def test_load_student_and_teacher_name_a_missing_folder(profile, tmp_path):
    gone = str(tmp_path / "gone")
    for load in (load_student, load_teacher):
        with pytest.raises(ModelError, match="gone: no config.json.*minilab"):
            load(profile, gone)
        with pytest.raises(ModelError, match="cannot load 'nothing-here'"):
            load(profile, "nobody/nothing-here")


@pytest.mark.parametrize(
    "missing", ["config.json", "model.safetensors", "tokenizer.json"]
)
def test_load_student_names_an_incomplete_folder(profile, tmp_path, missing):
    source = tiny.folder("mini-gemma3")
    broken = copy(source, tmp_path / "half-model", without=missing)
    with pytest.raises(ModelError, match="half-model") as caught:
        load_student(profile, str(broken))
    assert "\n" not in str(caught.value)


def test_load_student_and_teacher_name_broken_weights(profile, tmp_path):
    broken = copy(tiny.folder("mini-gemma3"), tmp_path / "half-model")
    weights = broken / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:2000])
    for load in (load_student, load_teacher):
        with pytest.raises(ModelError, match="cannot load 'half-model'"):
            load(profile, str(broken))


def test_load_teacher_is_ready_for_inference(profile):
    teacher = load_teacher(profile)
    assert not teacher.model.training
    assert teacher.backend == "transformers (float32)"
    assert quantized_layers(teacher.model) == 0


def test_load_teacher_in_4_bit_when_the_profile_says_so(tmp_path):
    profile = tiny.profile(tmp_path, teacher_in_4bit=True)
    assert quantized_layers(load_teacher(profile).model) == LAYERS * TARGETS
    student = load_teacher(profile, profile.student)
    assert quantized_layers(student.model) == 0


def test_add_lora_puts_adapters_on_all_seven_projections(profile):
    student = add_lora(load_student(profile), rank=4)
    targets = {
        name.split(".lora_A")[0].rsplit(".", 1)[-1]
        for name, parameter in student.model.named_parameters()
        if parameter.requires_grad and ".lora_A" in name
    }
    assert targets == set(models.PROJECTIONS)
    trainable = {
        name
        for name, parameter in student.model.named_parameters()
        if parameter.requires_grad
    }
    assert all(".lora_" in name for name in trainable)
    assert len(trainable) == 2 * LAYERS * TARGETS
    config = student.model.peft_config["default"]
    assert (config.r, config.lora_alpha) == (4, 8)


def test_add_lora_names_every_missing_target(profile):
    """The original script asked for `gate_up_proj`, which Gemma has not."""
    wanted = ("q_proj", "gate_up_proj", "fused_out")
    with pytest.raises(ModelError) as caught:
        add_lora(load_student(profile), rank=4, targets=wanted)
    message = str(caught.value)
    assert "no layer named gate_up_proj, fused_out in this" in message
    assert "gate_proj" in message.split("It has:")[1]


def test_add_lora_same_seed_same_adapter(profile):
    def first(seed):
        student = add_lora(load_student(profile), rank=4, seed=seed)
        return next(
            parameter.detach().clone()
            for name, parameter in student.model.named_parameters()
            if ".lora_A" in name
        )

    assert torch.equal(first(1), first(1))
    assert not torch.equal(first(1), first(2))


@pytest.mark.parametrize("load", [load_student, load_teacher])
def test_gemma_3_is_refused_in_float16(profile, load):
    half = replace(profile, dtype="float16", load_in_4bit=False)
    with pytest.raises(ModelError, match="overflows in float16.*bfloat16"):
        load(half, profile.student)
    assert load_teacher(half, profile.teacher).model.dtype == torch.float16


def test_hub_models_are_loaded_at_their_pinned_revision(monkeypatch, profile):
    """And from that repository: Unsloth would take another in its place."""
    asked = []

    class Fast:
        @staticmethod
        def from_pretrained(**options):
            asked.append(options)
            raise OSError("no network in a test")

    monkeypatch.setattr(models, "unsloth_backend", lambda: (Fast, "fast"))
    name = "unsloth/gemma-3-1b-it"
    with pytest.raises(ModelError, match="no network"):
        load_student(profile, name)
    assert asked[0]["revision"] == HUB[name].revision
    assert asked[0]["use_exact_model_name"] is True
    assert asked[0]["trust_remote_code"] is False
    assert asked[0]["use_safetensors"] is True


def test_add_lora_changes_nothing_before_training(profile):
    student = load_student(profile)
    ids = torch.tensor([[2, 300, 301, 302]])
    student.model.eval()
    with torch.no_grad():
        before = student.model(input_ids=ids).logits
        after = add_lora(student, rank=4).model.eval()(input_ids=ids).logits
    assert torch.allclose(before.float(), after.float(), atol=1e-5)


def test_load_adapter_names_a_missing_adapter(tmp_path):
    with pytest.raises(ModelError, match="final: no adapter_model.*helpers"):
        load_adapter(tiny.plain_student(), tmp_path / "final")


def test_load_adapter_refuses_one_of_another_student(profile, tmp_path):
    student = add_lora(load_student(profile), rank=4)
    student.model.save_pretrained(str(tmp_path / "final"))
    other = load_teacher(profile, profile.teacher)  # a Qwen3
    for folder in (tmp_path / "final",):
        with pytest.raises(ModelError, match="final: this adapter does not"):
            load_adapter(other, folder)


def test_unsloth_backend_fallback_on_purpose(monkeypatch):
    monkeypatch.setenv("DISTILL_NO_UNSLOTH", "1")
    backend = models.unsloth_backend.__wrapped__()
    assert backend == (None, "DISTILL_NO_UNSLOTH=1 asks for the fallback")


def failed(message: str, root: Exception) -> ImportError:
    """What transformers raises around the error that matters."""
    error = ImportError(message)
    error.__cause__ = root
    return error


@pytest.mark.parametrize(
    ("error", "parts"),
    [
        (NotImplementedError(), ["NotImplementedError"]),
        (AttributeError("no such thing\nmore"), ["no such thing"]),
        (
            failed(
                "Failed to import (see below):\nmore",
                RuntimeError("operator torchvision::nms does not exist"),
            ),
            ["Failed to import", "torchvision::nms", "uninstall -y torchvis"],
        ),
    ],
)
def test_unsloth_backend_shows_why_it_is_not_used(monkeypatch, error, parts):
    """With the root cause: Colab's torchvision does not fit our torch."""

    def fail(*_, **__):
        raise error

    monkeypatch.setattr("builtins.__import__", fail)
    try:
        with pytest.warns(UserWarning, match="Unsloth is not used") as caught:
            fast, reason = models.unsloth_backend.__wrapped__()
    finally:
        monkeypatch.undo()
    assert fast is None and "\n" not in reason
    assert all(part in reason for part in parts), reason
    assert reason in str(caught[0].message)


def test_load_student_says_in_its_backend_why_unsloth_is_not_used(
    profile, monkeypatch
):
    reason = "ImportError: torchvision does not fit"
    monkeypatch.setattr(models, "unsloth_backend", lambda: (None, reason))
    backend = load_student(profile).backend
    assert backend.startswith("transformers + PEFT") and reason in backend


@pytest.mark.parametrize("load", [load_student, load_teacher])
def test_loading_asks_for_no_code_and_runs_none(
    profile, tmp_path, monkeypatch, load
):
    """On a terminal, "y" would have run what a folder brings along."""
    strange = copy(tiny.folder("mini-gemma3"), tmp_path / "strange")
    config = json.loads((strange / "config.json").read_text())
    config |= {"model_type": "strange", "auto_map": {}}
    for auto in ("AutoConfig", "AutoModelForCausalLM"):
        config["auto_map"][auto] = f"code.{auto}"
    (strange / "config.json").write_text(json.dumps(config))
    ran = tmp_path / "ran"
    code = f"import pathlib; pathlib.Path({str(ran)!r}).touch()"
    (strange / "code.py").write_text(code)
    asked = []
    monkeypatch.setattr("builtins.input", lambda *a: asked.append(a) or "y")
    with pytest.raises(ModelError, match="strange"):
        load(profile, str(strange))
    assert not asked and not ran.exists()


@pytest.mark.parametrize("load", [load_student, load_teacher])
def test_loading_refuses_weights_that_are_no_safetensors(
    profile, tmp_path, load
):
    pickled = copy(
        tiny.folder("mini-gemma3"),
        tmp_path / "pickled",
        without="model.safetensors",
    )
    torch.save({}, pickled / "pytorch_model.bin")
    with pytest.raises(ModelError, match="pickled: no .*safetensors"):
        load(profile, str(pickled))


@pytest.mark.slow
def test_load_student_fallback_trains_the_same_way(tmp_path):
    environment = {**os.environ, "DISTILL_NO_UNSLOTH": "1"}
    done = subprocess.run(
        [sys.executable, "-c", FALLBACK, str(tmp_path)],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["type"] == "Loaded"
    assert found["backend"].startswith("transformers + PEFT + bitsandbytes")
    assert "DISTILL_NO_UNSLOTH" in found["backend"]
    assert not found["unsloth"]
    assert found["layers"] == LAYERS * TARGETS
    assert found["steps"] == 2 and 0 < found["loss"] < 100
    assert found["files"] == ["epoch_1", "final", "log.json", "run.json"]


def test_parameter_counts_by_hand(profile):
    """Embedding 1024 x 64, two layers of width 64 and 128, one KV head."""
    layer = 64 * 64 * 2 + 64 * 32 * 2 + 3 * 64 * 128  # q, o; k, v; mlp
    layer += 4 * 64 + 2 * 32  # norms of the layer, of queries and of keys
    base = 1024 * 64 + 2 * layer + 64
    plain = parameter_counts(tiny.plain_student().model)
    assert plain == {"trainable": base, "total": base}
    assert weight_bytes(tiny.plain_student().model) == 4 * base
    inputs_and_outputs = 2 * (64 + 64) + 2 * (64 + 32) + 3 * (64 + 128)
    adapters = 2 * 4 * inputs_and_outputs
    student = add_lora(load_student(profile), rank=4)
    assert parameter_counts(student.model) == {
        "trainable": adapters,
        "total": base + adapters,
    }


def test_weight_bytes_shrink_in_4_bit(profile):
    linear = 2 * (64 * 64 * 2 + 64 * 32 * 2 + 3 * 64 * 128)
    full = weight_bytes(tiny.plain_student().model)
    packed = weight_bytes(load_student(profile).model)
    assert packed == full - 4 * linear + linear // 2


def test_peak_memory_mb_is_in_mebibytes():
    before = peak_memory_mb()
    if cuda():
        pytest.skip("on a GPU the peak is the GPU's")
    block = torch.ones(2**28 // 4)  # 256 MiB
    grown = peak_memory_mb()
    assert 50 < before <= grown < 100_000
    assert block.sum() > 0
