"""helpers.models: loaded as asked, or a clear refusal."""

import importlib.util
import json
import shutil
from dataclasses import replace
from pathlib import Path
from unittest import mock

import forked
import pytest
import tiny
import torch
from safetensors.torch import load_file, save_file

from helpers import models
from helpers.models import (
    ModelError,
    add_lora,
    load_adapter,
    load_student,
    load_teacher,
    parameter_counts,
    quantized_layers,
)
from helpers.profiles import HUB

LAYERS = 2 * 7  # two blocks of seven projections
both = pytest.mark.parametrize("load", [load_student, load_teacher])


@pytest.fixture(scope="module")
def profile(tmp_path_factory):
    return tiny.profile(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def student(profile):
    """In 4 bits and without adapters, for tests that only look at it."""
    return load_student(profile)


def folder_with(tmp_path: Path, **files: bytes | None) -> Path:
    """A student's folder, some of its files changed or left out."""
    folder = tmp_path / "half-model"
    folder.mkdir()
    for file in tiny.folder(tiny.STUDENT).iterdir():
        content = files.get(file.stem, file.read_bytes())
        if content is not None:
            (folder / file.name).write_bytes(content)
    return folder


def test_load_student_goes_through_unsloth_in_4_bit(student):
    where = "GPU" if torch.cuda.is_available() else "CPU"
    assert student.backend.startswith("unsloth 20")
    assert student.backend.endswith(f"({where})")
    assert quantized_layers(student.model) == LAYERS
    parameter = student.model.model.layers[0].mlp.up_proj.weight
    assert parameter.quant_state.quant_type == "nf4"
    assert parameter.quant_state.nested  # double quantization
    shipped = tiny.tokenizer(tiny.STUDENT)
    assert student.tokenizer("a b")["input_ids"] == shipped("a b")["input_ids"]
    assert student.tokenizer.chat_template == shipped.chat_template


def test_a_model_is_in_4_bits_where_the_profile_says_so(profile):
    student = load_student(replace(profile, load_in_4bit=False))
    assert quantized_layers(student.model) == 0
    assert {p.dtype for p in student.model.parameters()} == {torch.float32}
    four_bits = replace(profile, teacher_in_4bit=True)
    assert quantized_layers(load_teacher(four_bits).model) == LAYERS
    student = load_teacher(four_bits, profile.student)
    assert quantized_layers(student.model) == 0
    assert student.backend == "transformers (float32)"


@both
@pytest.mark.parametrize(
    "file, content, reason",
    [
        ("config", None, "no config.json"),
        ("model", None, "no .*safetensors"),
        ("model", b"half a file", ""),
        ("tokenizer", None, ""),
    ],
)
def test_half_a_folder(profile, tmp_path, load, file, content, reason):
    """Weights in a pickle do not count."""
    broken = folder_with(tmp_path, **{file: content})
    torch.save({}, broken / "pytorch_model.bin")
    with pytest.raises(ModelError, match=f"half-model.*{reason}") as caught:
        load(profile, str(broken))
    assert "\n" not in str(caught.value)


@both
def test_weight_that_is_no_number_is_refused(profile, tmp_path, load):
    name = profile.teacher if load is load_teacher else profile.student
    broken = shutil.copytree(name, tmp_path / "broken")
    weights = load_file(broken / "model.safetensors")
    list(weights.values())[-1].view(-1)[-1] = float("nan")
    save_file(weights, broken / "model.safetensors", {"format": "pt"})
    with pytest.raises(ModelError, match="broken: model.* holds NaN"):
        load(replace(profile, load_in_4bit=False), str(broken))


@both
def test_what_is_missing_or_cannot_be_trained(profile, tmp_path, load):
    with pytest.raises(ModelError, match="gone: no config.json.*minilab"):
        load(profile, str(tmp_path / "gone"))
    with pytest.raises(ModelError, match="cannot load 'nothing-here'"):
        load(profile, "nobody/nothing-here")
    half = replace(profile, dtype="float16", load_in_4bit=False)
    with pytest.raises(ModelError, match="overflows in float16.*bfloat16"):
        load(half, profile.student)
    assert load_teacher(half, profile.teacher).model.dtype == torch.float16
    with pytest.raises(ModelError, match="mini-qwen3 is a thinking teacher"):
        load_student(profile, profile.teacher)


@both
def test_loading_runs_no_code(profile, tmp_path, monkeypatch, load):
    """On a terminal, "y" would have run what a folder brings along."""
    names = "AutoConfig", "AutoModelForCausalLM"
    config = {"auto_map": {name: f"code.{name}" for name in names}}
    config |= {"model_type": "strange"}
    strange = folder_with(tmp_path, config=json.dumps(config).encode())
    ran = tmp_path / "ran"
    code = f"import pathlib; pathlib.Path({str(ran)!r}).touch()"
    (strange / "code.py").write_text(code)
    asked = []
    monkeypatch.setattr("builtins.input", lambda *a: asked.append(a) or "y")
    with pytest.raises(ModelError, match="half-model"):
        load(profile, str(strange))
    assert not asked and not ran.exists()


def test_hub_models_are_loaded_at_their_pinned_revision(monkeypatch, profile):
    """And from that repository: Unsloth would take another in its place."""
    fast = mock.Mock()
    fast.from_pretrained.side_effect = OSError("no network in a test")
    monkeypatch.setattr(models, "unsloth_backend", lambda: (fast, "fast"))
    name = "unsloth/gemma-3-1b-it"
    with pytest.raises(ModelError, match="no network"):
        load_student(profile, name)
    asked = fast.from_pretrained.call_args.kwargs
    assert asked["revision"] == HUB[name].revision
    assert asked["use_exact_model_name"] and asked["use_safetensors"]
    assert asked["trust_remote_code"] is False
    for name in ("unsloth/models/loader.py", "unsloth_zoo/cpu/loader.py"):
        package, _, inner = name.partition("/")
        spec = importlib.util.find_spec(package)  # the loaders drop it unseen
        path = Path(spec.submodule_search_locations[0]) / inner
        assert "use_exact_model_name" in path.read_text("utf-8"), name


@pytest.mark.parametrize(
    ("error", "root", "parts"),
    [
        (NotImplementedError(), None, ["NotImplementedError"]),
        (  # Colab's torchvision does not fit our torch
            ImportError("Failed to import (see below):\nmore"),
            RuntimeError("operator torchvision::nms does not exist"),
            ["Failed to import", "torchvision::nms", "uninstall -y torchvis"],
        ),
    ],
)
def test_unsloth_that_does_not_import(
    profile, monkeypatch, error, root, parts
):
    error.__cause__ = root
    usual = __import__

    def fail(name, *args, **options):
        if name == "unsloth":
            raise error
        return usual(name, *args, **options)

    monkeypatch.setattr("builtins.__import__", fail)
    monkeypatch.setattr(
        models, "unsloth_backend", models.unsloth_backend.__wrapped__
    )
    with pytest.warns(UserWarning, match="Unsloth is not used") as warned:
        backend = load_student(profile).backend
    assert backend.startswith("transformers + PEFT") and "\n" not in backend
    for shown in (backend, str(warned[0].message)):
        assert all(part in shown for part in parts), shown


@pytest.mark.slow
def test_load_student_fallback_trains_the_same_way(profile):
    one_epoch = replace(profile, epochs=1)
    traces = tiny.traces(8)
    process = forked.start(forked.train_by_fallback, one_epoch, traces)
    process.join(300)
    assert process.exitcode == 0
    [path] = profile.run_folder.glob("**/report.json")
    report = json.loads(path.read_text())
    assert report["backend"].startswith("transformers + PEFT + bitsandbytes")
    assert "DISTILL_NO_UNSLOTH" in report["backend"]
    assert not report["unsloth"] and report["layers"] == LAYERS
    assert report["steps"] == 2 and 0 < report["loss"] < 100
    assert (path.parent / "final" / "adapter_model.safetensors").exists()


def test_add_lora_puts_adapters_on_all_seven_projections(profile):
    student = load_student(profile)
    ids = torch.tensor([[2, 300, 301, 302]])
    with torch.no_grad():
        before = student.model.eval()(input_ids=ids).logits
        student = add_lora(student, rank=4)
        after = student.model.eval()(input_ids=ids).logits
    assert torch.allclose(before.float(), after.float(), atol=1e-5)
    named = student.model.named_parameters()
    trainable = [name for name, weight in named if weight.requires_grad]
    assert len(trainable) == 2 * LAYERS
    config = student.model.peft_config["default"]
    assert config.target_modules == set(models.PROJECTIONS)
    assert (config.r, config.lora_alpha) == (4, 8)


def test_add_lora_names_every_missing_target(student):
    """The original script asked for `gate_up_proj`, which Gemma has not."""
    targets = ("q_proj", "gate_up_proj", "fused_out")
    missing = "no layer named gate_up_proj, fused_out in this.*has:.*gate_proj"
    with pytest.raises(ModelError, match=missing):
        add_lora(student, rank=4, targets=targets)


def test_load_adapter_refuses_a_missing_and_anothers(profile, tmp_path):
    with pytest.raises(ModelError, match="final: no adapter_model.*helpers"):
        load_adapter(tiny.plain_student(), tmp_path / "final")
    tiny.student(profile).model.save_pretrained(str(tmp_path / "final"))
    other = load_teacher(profile, profile.teacher)  # a Qwen3
    with pytest.raises(ModelError, match="'final'.* it was trained on"):
        load_adapter(other, tmp_path / "final")


def test_parameter_counts_by_hand(profile):
    """Embedding 896 x 64, two layers of width 64 and 128, one KV head."""
    packed = 2 * (64 * 64 * 2 + 64 * 32 * 2 + 3 * 64 * 128)  # q, o; k, v; mlp
    norms = 2 * (4 * 64 + 2 * 32) + 64  # also of queries and of keys
    base = 896 * 64 + packed + norms
    plain = tiny.plain_student().model
    assert parameter_counts(plain) == {"trainable": base, "total": base}
    inputs_and_outputs = 2 * (64 + 64) + 2 * (64 + 32) + 3 * (64 + 128)
    adapters = 2 * 4 * inputs_and_outputs
    counts = {"trainable": adapters, "total": base + adapters}
    assert parameter_counts(tiny.student(profile).model) == counts
