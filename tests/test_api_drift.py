"""The libraries still have the names and the arguments that we use.

Two nets: a fixed table of what the course teaches, and a scan of helpers/
and notebooks/ for the keywords that the code really passes.
"""

from __future__ import annotations

import ast
import importlib.util
import inspect
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]

SFT_FIELDS = """output_dir max_length packing completion_only_loss
per_device_train_batch_size gradient_accumulation_steps num_train_epochs
learning_rate lr_scheduler_type warmup_steps save_strategy save_total_limit
logging_steps report_to bf16 use_cpu gradient_checkpointing seed optim
disable_tqdm"""
USED = {
    "trl.SFTConfig": SFT_FIELDS,
    "trl.SFTTrainer": "model args train_dataset processing_class "
    "data_collator callbacks",
    "peft.LoraConfig": "r lora_alpha lora_dropout target_modules task_type "
    "bias",
    "peft.get_peft_model": "model peft_config",
    "peft.PeftModel.from_pretrained": "model model_id is_trainable",
    "peft.prepare_model_for_kbit_training": "model use_gradient_checkpointing",
    "transformers.BitsAndBytesConfig": "load_in_4bit bnb_4bit_quant_type "
    "bnb_4bit_use_double_quant bnb_4bit_compute_dtype",
    "transformers.Qwen3Config": "vocab_size hidden_size intermediate_size "
    "num_hidden_layers num_attention_heads num_key_value_heads head_dim "
    "tie_word_embeddings max_position_embeddings",
    "transformers.Gemma3TextConfig": "vocab_size hidden_size "
    "intermediate_size num_hidden_layers num_attention_heads "
    "num_key_value_heads head_dim sliding_window query_pre_attn_scalar",
    "bitsandbytes.functional.quantize_4bit": "A blocksize quant_type "
    "compress_statistics",
    "bitsandbytes.functional.dequantize_4bit": "A quant_state",
}
FAST = "unsloth.FastLanguageModel."
USED_OF_UNSLOTH = {
    FAST + "from_pretrained": "model_name max_seq_length dtype "
    "load_in_4bit revision",
    FAST + "get_peft_model": "model r target_modules lora_alpha lora_dropout "
    "bias use_gradient_checkpointing random_state",
    FAST + "for_inference": "model",
}
# GenerationConfig takes **kwargs, so its fields are read off an instance.
GENERATION = """do_sample temperature top_p top_k max_new_tokens eos_token_id
pad_token_id""".split()
# The last part of each name, as a call in our code would have it.
SCANNED = {
    name.rpartition(".")[2]: name
    for name in USED
    if not name.endswith("from_pretrained")
}


def _resolve(name: str) -> Any:
    module, *path = name.split(".")
    found = __import__(module)
    for part in path:
        found = getattr(found, part)
    return found


def _accepted(target: Any) -> set[str]:
    """The argument names of a class or function, without its **kwargs."""
    if getattr(target, "_unsloth_cpu", False):
        target = target.__base__  # Unsloth's subclass takes *args, **kwargs
    parameters = inspect.signature(target).parameters.values()
    return {
        item.name for item in parameters if item.kind is not item.VAR_KEYWORD
    }


@pytest.mark.parametrize("name", USED)
def test_library_has_symbol_and_arguments(name: str) -> None:
    missing = set(USED[name].split()) - _accepted(_resolve(name))
    assert not missing, f"{name} no longer takes {sorted(missing)}"


def test_accepted_notices_a_missing_argument() -> None:
    from trl import SFTConfig

    assert "max_length" in _accepted(SFTConfig)
    assert "max_seq_length" not in _accepted(SFTConfig)  # trl's old name


@pytest.mark.parametrize(
    "name",
    ["Gemma3ForCausalLM", "Qwen3ForCausalLM", "AutoTokenizer",
     "PreTrainedTokenizerFast", "TrainerCallback"],
)  # fmt: skip
def test_transformers_has_class(name: str) -> None:
    assert inspect.isclass(_resolve(f"transformers.{name}"))


@pytest.mark.parametrize(
    "argument", ["dtype", "quantization_config", "device_map"]
)
def test_from_pretrained_reads_the_argument(argument: str) -> None:
    from transformers import PreTrainedModel

    source = inspect.getsource(PreTrainedModel.from_pretrained)
    assert f'kwargs.pop("{argument}"' in source


def test_generation_config_has_fields() -> None:
    from transformers import GenerationConfig

    missing = [
        key for key in GENERATION if not hasattr(GenerationConfig(), key)
    ]
    assert missing == []


def test_sft_config_schedule_names_are_known() -> None:
    from transformers import SchedulerType
    from transformers.training_args import OptimizerNames

    assert SchedulerType("cosine") and OptimizerNames("adamw_torch_fused")


@cache
def _unsloth_signatures() -> dict[str, list[str]]:
    """Read in a process of its own: importing unsloth patches the others."""
    code = (
        "import inspect, json, unsloth\n"
        "names = 'from_pretrained get_peft_model for_inference'.split()\n"
        "model = unsloth.FastLanguageModel\n"
        "found = {n: list(inspect.signature(getattr(model, n)).parameters)"
        " for n in names}\n"
        "print('FOUND', json.dumps(found))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env=os.environ | {"HF_HUB_OFFLINE": "1"},
        timeout=300,
    )
    found = [line for line in done.stdout.splitlines() if "FOUND" in line]
    if not found:
        pytest.fail(f"unsloth cannot be imported: {done.stderr[-500:]}")
    return json.loads(found[-1].partition("FOUND")[2])


@pytest.mark.slow
@pytest.mark.parametrize("name", USED_OF_UNSLOTH)
def test_unsloth_has_symbol_and_arguments(name: str) -> None:
    accepted = _unsloth_signatures()[name.rpartition(".")[2]]
    missing = set(USED_OF_UNSLOTH[name].split()) - set(accepted)
    assert not missing, f"{name} no longer takes {sorted(missing)}"


def test_unsloth_knows_exact_names_on_a_gpu_and_without() -> None:
    """The CPU loader drops that argument; its signature does not name it."""
    for name in ("unsloth/models/loader.py", "unsloth_zoo/cpu/loader.py"):
        package, _, inner = name.partition("/")
        found = importlib.util.find_spec(package)  # imports nothing
        path = Path(found.submodule_search_locations[0]) / inner
        assert "use_exact_model_name" in path.read_text("utf-8"), name


# --- what the code really passes --------------------------------------------


def _sources() -> Iterator[tuple[str, str]]:
    for path in sorted((ROOT / "helpers").rglob("*.py")):
        yield path.name, path.read_text("utf-8")
    for path in sorted((ROOT / "notebooks").rglob("*.ipynb")):
        if ".ipynb_checkpoints" in path.parts:
            continue
        for number, cell in enumerate(
            json.loads(path.read_text("utf-8"))["cells"]
        ):
            if cell["cell_type"] == "code":
                yield f"{path.name} cell {number}", "".join(cell["source"])


def _calls(source: str) -> Iterator[tuple[str, set[str]]]:
    """(name, keywords) of the calls in a source that SCANNED knows."""
    try:
        tree = ast.parse(source)
    except SyntaxError:  # a cell with a magic command
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            name = ast.unparse(node.func).rpartition(".")[2]
            if name in SCANNED:
                keywords = {word.arg for word in node.keywords if word.arg}
                yield name, keywords


def test_calls_finds_keywords() -> None:
    source = "config = trl.SFTConfig(output_dir='x', **more)\nprint(end='')"
    assert list(_calls(source)) == [("SFTConfig", {"output_dir"})]
    assert list(_calls("%pip install trl")) == []


@pytest.mark.parametrize("name", SCANNED)
def test_our_code_passes_known_arguments(name: str) -> None:
    accepted = _accepted(_resolve(SCANNED[name]))
    # get_peft_model is also a method of Unsloth's model, with more arguments
    if name == "get_peft_model":
        accepted |= set(USED_OF_UNSLOTH[FAST + name].split())
    unknown = {
        (place, keyword)
        for place, source in _sources()
        for called, keywords in _calls(source)
        for keyword in (keywords - accepted if called == name else ())
    }
    assert not unknown, f"{SCANNED[name]} does not take {sorted(unknown)}"
