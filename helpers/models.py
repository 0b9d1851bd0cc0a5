"""Loading teacher and student, attaching adapters, and what they weigh.

Unsloth wants to be imported before transformers, trl and peft, so nothing
here imports those at the top: `load_student` asks for Unsloth first.
"""

from __future__ import annotations

import contextlib
import os
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from safetensors import safe_open

from helpers import CourseError, chat, first_line, quiet
from helpers.generate import (  # noqa: F401  all about models from one place
    parameter_counts,
    peak_memory_mb,
    reset_peak,
    weights_hash,
)
from helpers.profiles import Profile, revision_of

PROJECTIONS = tuple(f"{x}_proj" for x in "q k v o gate up down".split())
FALLBACK = "transformers + PEFT + bitsandbytes"
SAFE = {"trust_remote_code": False, "use_safetensors": True}  # runs nothing


class ModelError(CourseError):
    """A model that cannot be used as asked; says which and what to do."""


@dataclass(frozen=True)
class Loaded:
    """A model, its tokenizer, and in one line how it was loaded."""

    model: Any
    tokenizer: Any
    backend: str


@cache
def unsloth_backend() -> tuple[Any, str]:
    """Unsloth's FastLanguageModel and its version, or None and the reason.

    DISTILL_NO_UNSLOTH=1 asks for the fallback; any other reason is shown.
    """
    if os.environ.get("DISTILL_NO_UNSLOTH") == "1":
        return None, "DISTILL_NO_UNSLOTH=1 asks for the fallback"
    try:
        with quiet():
            import unsloth
    except Exception as error:  # its imports raise many kinds
        reason = import_reason(error)
        warnings.warn(f"Unsloth is not used: {reason}", stacklevel=2)
        return None, reason
    where = "GPU" if torch.cuda.is_available() else "CPU"
    version = f"unsloth {unsloth.__version__} ({where})"
    return unsloth.FastLanguageModel, version


def import_reason(error: BaseException) -> str:
    """Why an import failed, with its root cause, in one line."""
    root = error
    while root.__cause__ or root.__context__:
        root = root.__cause__ or root.__context__
    reason = f"{type(error).__name__}: {first_line(error)}"
    if root is not error:
        reason += f" (from {type(root).__name__}: {first_line(root)})"
    if "torchvision" in f"{error} {root}":  # Colab and Kaggle bring theirs
        reason += " Cure: pip uninstall -y torchvision, then restart."
    return reason


@cache
def processes() -> PartialState:
    """All of this job (torchrun starts several); they wait for days."""
    cpu = not torch.cuda.is_available()
    return PartialState(cpu=cpu, timeout=timedelta(days=7))


def check_model_id(name: str) -> str:
    """Refuse a local folder that does not hold a model; hub ids pass."""
    path = Path(name)
    local = path.is_absolute() or name.startswith(".") or path.exists()
    for file in ("config.json", "*.safetensors"):
        if local and not any(path.glob(file)):
            raise ModelError(
                f"{path.name}: no {file} in that folder, so no model to "
                "load. Name a Hugging Face model folder, or a hub id; the "
                "mini models are rebuilt by `python3 -m helpers minilab`."
            )
    return name


@contextlib.contextmanager
def one_sentence(
    path: str | Path,
    cure: str = "Check the id and your connection, or name a local folder.",
) -> Iterator[None]:
    """One sentence for the many ways in which a model does not load."""
    try:
        yield
    except Exception as error:  # the libraries raise many kinds
        reason = f"cannot load {Path(path).name!r}: {first_line(error)}"
        raise ModelError(f"{reason} {cure}") from error


def load_plain(profile: Profile, name: str, *, in_4bit: bool) -> Loaded:
    """A model by transformers, its linear layers in NF4 where asked for.

    NF4 with double quantization: QLoRA (arXiv:2305.14314), section 3.
    """
    import transformers

    dtype, revision = getattr(torch, profile.dtype), revision_of(name)
    nf4 = transformers.BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
    )
    tokenizer = transformers.AutoTokenizer.from_pretrained(
        name, revision=revision, trust_remote_code=False
    )
    model = transformers.AutoModelForCausalLM.from_pretrained(
        name,
        revision=revision,
        dtype=dtype,
        device_map=processes().device,
        quantization_config=nf4 if in_4bit else None,
        **SAFE,
    )
    return Loaded(model, tokenizer, f"transformers ({profile.dtype})")


def load_by_unsloth(fast: Any, profile: Profile, name: str) -> Loaded:
    """A model by Unsloth: told everything, so that it guesses nothing."""
    model, tokenizer = fast.from_pretrained(
        model_name=name,
        revision=revision_of(name),
        use_exact_model_name=True,  # no other repository instead
        max_seq_length=profile.max_length,
        dtype=getattr(torch, profile.dtype),
        load_in_4bit=profile.load_in_4bit,
        use_gradient_checkpointing=False,
        **SAFE,
    )
    tokenizer = getattr(tokenizer, "tokenizer", tokenizer)
    return Loaded(model, tokenizer, "unsloth")


def load_teacher(profile: Profile, name: str | None = None) -> Loaded:
    """The teacher for inference, in the profile's dtype, optionally 4-bit.

    `name` loads another model the same way, for instance the student before
    training. Raises ModelError when the folder or hub id gives no model.
    """
    name = check_model_id(name or profile.teacher)
    in_4bit = profile.teacher_in_4bit and name == profile.teacher
    with one_sentence(name):
        loaded = load_plain(profile, name, in_4bit=in_4bit)
    check_dtype(loaded.model.eval(), profile)
    return loaded


def load_student(profile: Profile, name: str | None = None) -> Loaded:
    """The student, its linear layers in 4 bits, ready for `add_lora`.

    Goes through Unsloth; where Unsloth cannot be imported, the one-line
    reason stands in `backend` and transformers + bitsandbytes do the same.
    Raises ModelError for a folder without a model, and for a thinking model:
    its chat template opens `<think>`, so it could not answer at once.
    """
    name = check_model_id(name or profile.student)
    fast, backend = unsloth_backend()
    with one_sentence(name), quiet():
        if fast is None:
            loaded = load_plain(profile, name, in_4bit=profile.load_in_4bit)
            backend = f"{FALLBACK} (no Unsloth: {backend})"
        else:
            loaded = load_by_unsloth(fast, profile, name)
    check_dtype(loaded.model, profile)
    prompt = chat.student_messages("1 + 1?")
    prompt = chat.render(prompt, loaded.tokenizer, generate=True)
    if prompt.endswith(chat.THINK_OPEN):
        raise ModelError(
            f"{Path(name).name} is a thinking teacher: its chat template "
            "opens <think>. Name a student that answers at once."
        )
    return replace(loaded, backend=backend)


def check_dtype(model: Any, profile: Profile) -> None:
    """Weights are numbers; and Gemma 3 overflows in float16 (65,504)."""
    gemma = str(model.config.model_type).startswith("gemma3")
    if gemma and profile.dtype == "float16":
        raise ModelError(
            "Gemma 3 overflows in float16. Set DISTILL_DTYPE=bfloat16, or "
            "float32 where the GPU has no bfloat16."
        )
    for name, weight in model.named_parameters():
        numbers = weight.is_floating_point() and weight.numel()
        if numbers and not torch.stack(weight.aminmax()).isfinite().all():
            where = f"{Path(model.config.name_or_path).name}: {name}"
            raise ModelError(f"{where} holds NaN. Use another, or load anew.")


def quantized_layers(model: Any) -> int:
    """How many linear layers hold 4-bit weights."""
    return sum(type(m).__name__ == "Linear4bit" for m in model.modules())


def add_lora(
    loaded: Loaded,
    *,
    rank: int,
    alpha: float | None = None,
    targets: tuple[str, ...] = PROJECTIONS,
    seed: int = 7,
) -> Loaded:
    """LoRA adapters of `rank` on `targets`, scaled by alpha / rank.

    alpha: 2 * rank unless it is given. Source: LoRA (arXiv:2106.09685),
    section 4.1; all linear layers as in QLoRA (arXiv:2305.14314). Raises
    ModelError when a target is missing.
    """
    base = loaded.model
    check_targets(base, targets)
    fast, _ = unsloth_backend()
    options: dict[str, Any] = {"r": rank, "lora_alpha": alpha or 2 * rank}
    options |= {"target_modules": list(targets), "bias": "none"}
    if fast is not None:
        options |= {"use_gradient_checkpointing": False, "random_state": seed}
        return replace(loaded, model=fast.get_peft_model(base, **options))
    import peft

    torch.manual_seed(seed)
    if quantized_layers(base):
        base = peft.prepare_model_for_kbit_training(
            base, use_gradient_checkpointing=False
        )
    config = peft.LoraConfig(task_type="CAUSAL_LM", **options)
    return replace(loaded, model=peft.get_peft_model(base, config))


def check_targets(model: Any, targets: tuple[str, ...]) -> None:
    """Every adapter asked for has a layer; PEFT would skip it in silence."""
    names = {name.rpartition(".")[2] for name, _ in model.named_modules()}
    missing = [target for target in targets if target not in names]
    if missing:
        linear = sorted(name for name in names if name.endswith("_proj"))
        raise ModelError(
            f"no layer named {', '.join(missing)} in this model. It has: "
            f"{', '.join(linear)}. Correct target_modules."
        )


def load_adapter(loaded: Loaded, folder: Path) -> Loaded:
    """A saved adapter on top of a student, for inference.

    A student that already has adapters keeps them, switched off, so that
    several checkpoints can be compared without loading the student again.
    """
    if not (folder / "adapter_model.safetensors").exists():
        raise ModelError(
            f"{folder.name}: no adapter_model.safetensors there. Run notebook "
            "03, or `python3 -m helpers sft`, to train it."
        )
    from peft import PeftModel

    model = loaded.model
    with one_sentence(folder, "Load the student it was trained on."):
        if isinstance(model, PeftModel):
            model.load_adapter(str(folder), adapter_name=folder.name)
            model.set_adapter(folder.name)
        else:
            model = PeftModel.from_pretrained(model, str(folder))
        check_adapter(model, folder / "adapter_model.safetensors")
    return replace(loaded, model=model.eval())


def check_adapter(model: Any, path: Path) -> None:
    """Every weight of the file belongs to the model; PEFT would only warn."""
    from peft import get_peft_model_state_dict

    adapter = model.active_adapter
    expected = get_peft_model_state_dict(model, adapter_name=adapter)
    with safe_open(path, "pt") as tensors:
        if set(tensors.keys()) != set(expected):
            raise ValueError("its weights are those of another model.")
