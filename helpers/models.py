"""Loading teacher and student, attaching adapters, and what they weigh.

Unsloth wants to be imported before transformers, trl and peft, so nothing
here imports those at the top: `load_student` asks for Unsloth first.
"""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import io
import logging
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from safetensors import SafetensorError

from helpers import CourseError, chat
from helpers.profiles import Profile, revision_of


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Hold back what libraries print while they load; errors still rise.

    `Loaded.backend` says in one line what the banners say in several.
    """
    library = logging.getLogger("transformers")
    level = library.level
    library.setLevel(logging.ERROR)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        library.setLevel(level)


@cache
def unsloth_backend() -> tuple[Any, str]:
    """Unsloth's FastLanguageModel and its version, or None and the reason.

    Set DISTILL_NO_UNSLOTH=1 to use the fallback on purpose.
    """
    if os.environ.get("DISTILL_NO_UNSLOTH") == "1":
        return None, "DISTILL_NO_UNSLOTH=1 asks for the fallback"
    try:
        with quiet():
            import unsloth
    except (ImportError, NotImplementedError, RuntimeError) as error:
        return None, f"{type(error).__name__}: {first_line(error)}"
    where = "GPU" if torch.cuda.is_available() else "CPU"
    name = f"unsloth {unsloth.__version__} ({where})"
    return unsloth.FastLanguageModel, name


def first_line(error: Exception) -> str:
    """The first line of an error's text, its type where it has none."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


PROCESS = Path("/proc/self")  # Linux only


def parameter_counts(model: Any) -> dict[str, int]:
    """Trainable and total parameters; a 4-bit byte counts as two."""
    counts = {"trainable": 0, "total": 0}
    for parameter in model.parameters():
        packed = type(parameter).__name__ == "Params4bit"
        size = parameter.numel() * (2 if packed else 1)
        counts["total"] += size
        counts["trainable"] += size if parameter.requires_grad else 0
    return counts


def weight_bytes(model: Any) -> int:
    """Bytes that the parameters occupy as they are stored."""
    return sum(p.numel() * p.element_size() for p in model.parameters())


def weights_hash(model: Any) -> str:
    """Of the first 64 values of each parameter: training changes them all."""
    digest = hashlib.sha256()
    for name, parameter in model.named_parameters():
        some = parameter.detach().flatten()[:64].float().cpu()
        digest.update(name.encode() + some.numpy().tobytes())
    return digest.hexdigest()


def peak_memory_mb() -> float:
    """Peak since `reset_peak` in MiB (of the GPU where there is one)."""
    return peak_in_use() / 2**20


def reset_peak() -> bool:
    """Forget the peak so far; what is in use stays in use, and counts.

    False where the process's peak cannot be forgotten (macOS, Windows, some
    containers): `peak_in_use` is then the peak since the process began.
    """
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
        return True
    trim()
    try:
        (PROCESS / "clear_refs").write_text("5")
    except OSError:
        return False
    return True


def peak_in_use() -> int:
    """The highest number of bytes in use since `reset_peak`."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    try:
        return process_bytes("VmHWM")
    except OSError:
        return peak_of_process()


def peak_of_process() -> int:
    """The highest number of bytes since the process began, anywhere."""
    try:
        import resource
    except ImportError:  # Windows
        import psutil

        return psutil.Process().memory_info().peak_wset
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak * (1 if sys.platform == "darwin" else 2**10)


def process_bytes(field: str) -> int:
    """A field of /proc/self/status, in bytes; OSError where it is not."""
    path = PROCESS / "status"
    for line in path.read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    raise OSError(f"no {field} in {path}")


def trim() -> None:
    """Give freed memory back to the system, where glibc can."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)


PROJECTIONS = (
    "q_proj",
    "k_proj",
    "v_proj",
    "o_proj",
    "gate_proj",
    "up_proj",
    "down_proj",
)

# Harmless on a machine without a GPU: a faster kernel that is not installed.
logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)


LOAD_ERRORS = (OSError, ValueError, RuntimeError, SafetensorError)


@lru_cache(maxsize=1)
def processes() -> PartialState:
    """The processes that share this job, one without a launcher.

    `accelerate launch` or `torchrun` start several; all of them compute, the
    first one writes. They wait for each other for days: the default, 10 or 30
    minutes, is less than one may be ahead.
    """
    cpu = not torch.cuda.is_available()
    return PartialState(cpu=cpu, timeout=timedelta(days=7))


class ModelError(CourseError):
    """A model that cannot be used as asked; says which and what to do."""


@dataclass(frozen=True)
class Loaded:
    """A model, its tokenizer, and in one line how it was loaded."""

    model: Any
    tokenizer: Any
    backend: str


def check_model_id(name: str) -> str:
    """Refuse a local folder that does not hold a model; hub ids pass."""
    path = Path(name)
    local = path.is_absolute() or name.startswith(".") or path.exists()
    if local and not (path / "config.json").exists():
        raise ModelError(
            f"{path.name}: no config.json in that folder, so no model to "
            "load. Name a Hugging Face model folder, or a hub id; the mini "
            "models are rebuilt by `python3 -m helpers minilab`."
        )
    return name


def load_teacher(profile: Profile, name: str | None = None) -> Loaded:
    """The teacher for inference, in the profile's dtype, optionally 4-bit.

    `name` loads another model the same way, for instance the student before
    training. Raises ModelError when the folder or hub id gives no model.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer

    name = check_model_id(name or profile.teacher)
    options: dict[str, Any] = {"dtype": getattr(torch, profile.dtype)}
    if profile.teacher_in_4bit and name == profile.teacher:
        options["quantization_config"] = nf4_config(profile)
    try:
        revision = revision_of(name)
        tokenizer = AutoTokenizer.from_pretrained(name, revision=revision)
        model = AutoModelForCausalLM.from_pretrained(
            name,
            revision=revision,
            device_map=processes().device,
            use_safetensors=True,
            **options,
        )
    except LOAD_ERRORS as error:
        raise load_error(name, error) from error
    check_dtype(model, profile)
    model.eval()
    return Loaded(model, tokenizer, f"transformers ({profile.dtype})")


def check_dtype(model: Any, profile: Profile) -> None:
    """Gemma 3's activations exceed float16's 65,504: infinities, then NaN."""
    gemma = str(model.config.model_type).startswith("gemma3")
    if gemma and profile.dtype == "float16":
        raise ModelError(
            "Gemma 3 overflows in float16. Set DISTILL_DTYPE=bfloat16, or "
            "float32 where the GPU has no bfloat16."
        )


def load_error(name: str, error: Exception) -> ModelError:
    """One sentence for the many ways in which a model does not load."""
    return ModelError(
        f"cannot load {Path(name).name!r}: {first_line(error)} "
        "Check the id and your connection, or name a local folder in "
        "DISTILL_TEACHER or DISTILL_STUDENT."
    )


def nf4_config(profile: Profile) -> Any:
    """bitsandbytes' NF4 with double quantization (QLoRA, section 3)."""
    from transformers import BitsAndBytesConfig

    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=getattr(torch, profile.dtype),
    )


def load_student(profile: Profile, name: str | None = None) -> Loaded:
    """The student, its linear layers in 4 bits, ready for `add_lora`.

    Goes through Unsloth; where Unsloth cannot be imported, the one-line
    reason stands in `backend` and transformers + bitsandbytes do the same.
    Raises ModelError for a folder without a model, and for a thinking model:
    its chat template opens `<think>`, so it could not answer at once.
    """
    name = check_model_id(name or profile.student)
    fast, reason = unsloth_backend()
    try:
        if fast is not None:
            loaded = load_with_unsloth(fast, reason, profile, name)
        else:
            loaded = load_plain(reason, profile, name)
    except LOAD_ERRORS as error:
        raise load_error(name, error) from error
    check_student(loaded, name)
    check_dtype(loaded.model, profile)
    if profile.load_in_4bit and not quantized_layers(loaded.model):
        raise ModelError(
            f"{Path(name).name}: 4-bit was asked for, but no layer is "
            "quantized. Layers narrower than 64 cannot be; set "
            "DISTILL_LOAD_IN_4BIT=0 to train without."
        )
    return loaded


def load_with_unsloth(
    fast: Any, backend: str, profile: Profile, name: str
) -> Loaded:
    """Unsloth's loader, told everything, so that nothing is guessed."""
    with quiet():
        model, tokenizer = fast.from_pretrained(
            model_name=name,
            revision=revision_of(name),
            use_exact_model_name=True,  # no other repository in its place
            max_seq_length=profile.max_length,
            dtype=getattr(torch, profile.dtype),
            load_in_4bit=profile.load_in_4bit,
            use_gradient_checkpointing=False,
        )
    tokenizer = getattr(tokenizer, "tokenizer", tokenizer)
    return Loaded(model, tokenizer, backend)


def load_plain(reason: str, profile: Profile, name: str) -> Loaded:
    """transformers + bitsandbytes, where Unsloth cannot load."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    revision = revision_of(name)
    tokenizer = AutoTokenizer.from_pretrained(name, revision=revision)
    options: dict[str, Any] = {"dtype": getattr(torch, profile.dtype)}
    if profile.load_in_4bit:
        options["quantization_config"] = nf4_config(profile)
    model = AutoModelForCausalLM.from_pretrained(
        name,
        revision=revision,
        device_map=processes().device,
        use_safetensors=True,
        **options,
    )
    backend = f"transformers + PEFT + bitsandbytes (no Unsloth: {reason})"
    return Loaded(model, tokenizer, backend)


def check_student(loaded: Loaded, name: str) -> None:
    """A student's template must leave the first word to the student."""
    messages = chat.student_messages("1 + 1?")
    prompt = chat.render(messages, loaded.tokenizer, generate=True)
    if prompt.endswith(chat.THINK_OPEN):
        raise ModelError(
            f"{Path(name).name} is a thinking teacher: its chat template "
            "opens <think> by itself. Name a student that answers at once, "
            "for instance in DISTILL_STUDENT."
        )


def quantized_layers(model: Any) -> int:
    """How many linear layers hold 4-bit weights."""
    return sum(type(m).__name__ == "Linear4bit" for m in model.modules())


def check_targets(model: Any, targets: tuple[str, ...]) -> None:
    """Every adapter asked for must have a layer to sit on.

    PEFT ignores a name that matches nothing, and training would silently
    lose that part of its capacity. Raises ModelError naming the missing.
    """
    names = {name.rsplit(".", 1)[-1] for name, _ in model.named_modules()}
    missing = [target for target in targets if target not in names]
    if missing:
        linear = sorted(n for n in names if n.endswith("_proj"))
        raise ModelError(
            f"no layer named {', '.join(missing)} in this model. It has: "
            f"{', '.join(linear)}. Correct target_modules."
        )


def add_lora(
    loaded: Loaded,
    *,
    rank: int,
    targets: tuple[str, ...] = PROJECTIONS,
    seed: int = 7,
) -> Loaded:
    """LoRA adapters of `rank` on `targets`, scaled by alpha = 2 * rank.

    Source: LoRA (arXiv:2106.09685), section 4.1; all linear layers as in
    QLoRA (arXiv:2305.14314). Raises ModelError when a target is missing.
    """
    check_targets(loaded.model, targets)
    fast, _ = unsloth_backend()
    options = {"r": rank, "lora_alpha": 2 * rank, "lora_dropout": 0.0}
    if fast is not None:
        model = fast.get_peft_model(
            loaded.model,
            target_modules=list(targets),
            use_gradient_checkpointing=False,
            random_state=seed,
            bias="none",
            **options,
        )
    else:
        from peft import (
            LoraConfig,
            get_peft_model,
            prepare_model_for_kbit_training,
        )

        torch.manual_seed(seed)
        base = loaded.model
        if quantized_layers(base):
            base = prepare_model_for_kbit_training(
                base, use_gradient_checkpointing=False
            )
        config = LoraConfig(
            target_modules=list(targets), task_type="CAUSAL_LM", **options
        )
        model = get_peft_model(base, config)
    return Loaded(model, loaded.tokenizer, loaded.backend)


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
    try:
        if isinstance(model, PeftModel):
            model.load_adapter(str(folder), adapter_name=folder.name)
            model.set_adapter(folder.name)
        else:
            model = PeftModel.from_pretrained(model, str(folder))
    except LOAD_ERRORS as error:
        raise ModelError(
            f"{folder.name}: this adapter does not fit the student "
            f"({first_line(error)}). Load the student it was trained on."
        ) from error
    model.eval()
    return Loaded(model, loaded.tokenizer, loaded.backend)
