"""The libraries still take every keyword that our code passes them.

A pin that moves shows itself here, also where a notebook calls a function
that no other test calls, or where a library ignores what it does not know.
"""

from __future__ import annotations

import ast
import importlib.util
import inspect
import json
from collections.abc import Iterator
from functools import cache
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SCANNED = (
    *("trl.SFTConfig", "peft.LoraConfig"),
    *("peft.get_peft_model", "peft.prepare_model_for_kbit_training"),
    *("transformers.BitsAndBytesConfig", "transformers.Qwen3Config"),
    "transformers.Gemma3TextConfig",
    "bitsandbytes.functional.quantize_4bit",
    "bitsandbytes.functional.dequantize_4bit",
)
# get_peft_model is also a method of Unsloth's model, with arguments of its own
UNSLOTH = """r target_modules lora_alpha lora_dropout bias random_state
use_gradient_checkpointing"""


def accepted(name: str) -> set[str]:
    """The argument names of a class or function, without its **kwargs."""
    module, _, attribute = name.rpartition(".")
    target = getattr(import_module(module), attribute)
    if getattr(target, "_unsloth_cpu", False):
        target = target.__base__  # Unsloth's subclass takes *args, **kwargs
    parameters = inspect.signature(target).parameters.values()
    more = UNSLOTH.split() if attribute == "get_peft_model" else []
    return {p.name for p in parameters if p.kind is not p.VAR_KEYWORD} | {
        *more
    }


def sources() -> Iterator[str]:
    for path in sorted((ROOT / "helpers").rglob("*.py")):
        yield path.read_text("utf-8")
    for path in sorted((ROOT / "notebooks").rglob("*.ipynb")):
        for cell in json.loads(path.read_text("utf-8"))["cells"]:
            if cell["cell_type"] == "code":
                yield "".join(cell["source"])


@cache
def calls() -> list[tuple[str, set[str]]]:
    """(name, keywords) of every call in helpers and in the notebooks."""
    nodes = [node for text in sources() for node in ast.walk(ast.parse(text))]
    return [
        (
            ast.unparse(node.func).rpartition(".")[2],
            {word.arg for word in node.keywords if word.arg},
        )
        for node in nodes
        if isinstance(node, ast.Call)
    ]


@pytest.mark.parametrize("name", SCANNED)
def test_our_code_passes_known_arguments(name):
    short = name.rpartition(".")[2]
    passed = [keywords for called, keywords in calls() if called == short]
    assert passed, f"nothing calls {short} any more: take it off the list"
    assert set().union(*passed) <= accepted(name)


@pytest.mark.parametrize(
    "argument", ["dtype", "quantization_config", "device_map"]
)
def test_from_pretrained_reads_the_argument(argument):
    from transformers import PreTrainedModel

    source = inspect.getsource(PreTrainedModel.from_pretrained)
    assert f'kwargs.pop("{argument}"' in source


def test_unsloth_knows_exact_names_on_a_gpu_and_without():
    """The CPU loader drops that argument; its signature does not name it."""
    for name in ("unsloth/models/loader.py", "unsloth_zoo/cpu/loader.py"):
        package, _, inner = name.partition("/")
        spec = importlib.util.find_spec(package)  # imports nothing
        path = Path(spec.submodule_search_locations[0]) / inner
        assert "use_exact_model_name" in path.read_text("utf-8"), name
