"""`python3 -m helpers doctor`: is this machine ready? One line a check.

It imports the standard library alone, so that it also runs, and says what to
do, where the environment does not exist yet.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from helpers import CourseError
from helpers.cli import environment
from helpers.cli.commands import command_parser
from helpers.cli.environment import REPOSITORY
from helpers.profiles import MODELS, RUNS, Profile, get_profile, revision_of
from helpers.scale.planner import GIB, PROMPT, plan_memory
from helpers.scale.shapes import load_shape

NEEDS = {"mini": (4, 1), "laptop": (16, 15), "full": (16, 30)}  # memory, disk
SPARE = 1.0  # GiB for the libraries and CUDA's own context
CALL = "& " if os.name == "nt" else ""  # PowerShell, before a quoted path
INSTALL = f'`{CALL}"{sys.executable}" -m pip install'
GPU = """
import torch
total = torch.cuda.get_device_properties(0).total_memory / 2**30
print(f"{total:.1f} GiB, {torch.cuda.get_device_name()}")
"""
FOUR_BIT = """
import torch
from bitsandbytes.functional import dequantize_4bit, quantize_4bit
matrix = torch.randn(64, 64, device=torch.get_default_device())
matrix = matrix.cuda() if torch.cuda.is_available() else matrix
error = dequantize_4bit(*quantize_4bit(matrix, quant_type="nf4")) - matrix
assert error.abs().mean() < 0.15, error.abs().mean()
print(f"to NF4 and back on {matrix.device.type}")
"""
PORT = 8888
TWO = """
import sys
from torch.distributed.run import main
code = "from torch import distributed as d; d.init_process_group('gloo'); "
code += "d.barrier(); d.destroy_process_group()"
given = ["--standalone", "--nproc-per-node=2", "--no-python", sys.executable]
main([*given, "-c", code])
print("two work together")
"""


class Check(NamedTuple):
    """One line: OK, INFO (worth knowing) or FAIL, with its cure."""

    status: str
    name: str
    text: str
    cure: str = ""

    def __str__(self) -> str:
        needed = self.cure and self.status == "FAIL"
        cure = f". Cure: {self.cure}." if needed else ""
        return f"{self.status:<5}{self.name:<12} {self.text}{cure}"


def main(argv: list[str]) -> int:
    """Print every check; 1 if one fails."""
    parser = command_parser("doctor", "check this machine, one line a check")
    options = parser.parse_args(argv)
    failed = 0
    for check in all_checks(options.profile):
        print(check, flush=True)
        failed += check.status == "FAIL"
    print(f"\n{failed} FAIL" if failed else "\nAll is well.")
    return 1 if failed else 0


def all_checks(name: str) -> Iterator[Check]:
    """Yield the checks one by one, the quick ones first."""
    try:
        profile = get_profile(name)
        ready = environment.find()
    except CourseError as error:
        yield Check("FAIL", "settings", str(error))  # which says the cure
        return
    yield from machine_checks(*NEEDS[name])
    yield from class_checks(RUNS)
    if ready is None:
        cure = "`python3 -m helpers run` makes it and then runs the course"
        yield Check("FAIL", "environment", "it is not made yet", cure)
        return
    for pin in environment.unmet_pins():
        yield Check("FAIL", "package", pin, f"{INSTALL} --no-deps {pin}`")
    if name == "mini" and os.environ.get("CUDA_VISIBLE_DEVICES") == "-1":
        gpu = Check("INFO", "GPU", "not used: mini computes on the CPU")
    elif environment.has_nvidia_gpu():
        cure = "the torch for your driver, see pytorch.org/get-started/locally"
        gpu = probe("GPU", GPU, cure)
    else:
        status = "FAIL" if name == "full" else "INFO"
        cure = "a machine with a 24 GB GPU, or a smaller profile"
        gpu = Check(status, "GPU", "no NVIDIA GPU was found", cure)
    yield gpu
    if gpu.status == "OK" and not can_compile():
        text = "none: Unsloth's kernels are compiled at their first use"
        cure = "`apt-get install gcc python3-dev`"
        yield Check("FAIL", "C compiler", text, cure)
    gib = float(gpu.text.split()[0]) if gpu.status == "OK" else None
    yield from fit_checks(profile, gib) if name != "mini" else ()
    yield from model_checks(profile)
    cure = f"{INSTALL} --force-reinstall bitsandbytes`"
    yield probe("4-bit", FOUR_BIT, cure)
    pair = probe("processes", TWO)  # one works where two do not
    yield pair._replace(status="INFO") if pair.status == "FAIL" else pair
    unsloth = probe("Unsloth", "import unsloth; print(unsloth.__version__)")
    missing = unsloth.status == "FAIL"  # transformers + PEFT take its place
    yield unsloth._replace(status="INFO") if missing else unsloth


def can_compile() -> bool:
    """Are a C compiler and Python's own headers here, as Triton wants?

    On Windows it brings its own.
    """
    compilers = (os.environ.get("CC"), *map(shutil.which, ("gcc", "clang")))
    header = Path(sysconfig.get_path("include")) / "Python.h"
    return os.name == "nt" or (any(compilers) and header.is_file())


def probe(name: str, code: str, cure: str = "") -> Check:
    """Run code in a Python of its own; its last line is the check's text."""
    command = [sys.executable, "-c", code]
    done = subprocess.run(
        command, capture_output=True, text=True, errors="replace"
    )
    worked = done.returncode == 0
    lines = (done.stdout if worked else done.stderr).strip().splitlines()
    text = lines[-1] if lines else f"exit status {done.returncode}"
    return Check("OK" if worked else "FAIL", name, text, cure)


def machine_checks(memory: int, disk: int) -> Iterator[Check]:
    """Free disk and memory in GiB; the latter cannot be asked on Windows."""
    sizes = [("disk", shutil.disk_usage(REPOSITORY).free, disk)]
    if hasattr(os, "sysconf"):
        size = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        sizes.append(("memory", size, memory))
    if os.name == "nt":
        yield runtime_check()
    for name, size, needed in sizes:
        status = "OK" if size > 0.9 * needed * GIB else "FAIL"
        text = f"{size / GIB:.1f} GiB, the profile needs {needed}"
        yield Check(status, name, text, "free some, or use a smaller profile")


def runtime_check() -> Check:
    """Windows: the C++ libraries that torch wants and Python may lack."""
    import ctypes

    cure = "`winget install Microsoft.VCRedist.2015+.x64`"
    try:
        for name in ("msvcp140", "vcruntime140_1", "vcomp140"):
            ctypes.WinDLL(name)
    except OSError as error:
        return Check("FAIL", "C++ runtime", str(error), cure)
    return Check("OK", "C++ runtime", "is here")


def class_checks(folder: Path) -> Iterator[Check]:
    """May `folder` be written, and does anybody listen where `lab` would?"""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
        yield Check("OK", "write access", f"{folder.name} can be written")
    except OSError as error:
        cure = "copy the course into a folder of your own"
        yield Check("FAIL", "write access", str(error), cure)
    with socket.socket() as client:
        taken = client.connect_ex(("127.0.0.1", PORT)) == 0
    text = "taken: `lab` uses the next one" if taken else "free"
    yield Check("INFO" if taken else "OK", f"port {PORT}", text)


def fit_checks(profile: Profile, gib: float | None) -> Iterator[Check]:
    """Would each phase fit a GPU of `gib`? By the planner: estimated."""
    width = 32 if profile.dtype == "float32" else 16
    bits = 4 if profile.load_in_4bit else width
    taught = 4 if profile.teacher_in_4bit else width
    asking: dict[str, Any] = {
        "method": "generate",
        "bits": bits,
        "length": PROMPT + profile.max_new_tokens,
    }
    writing = asking | {"bits": taught}
    training: dict[str, Any] = {
        "bits": bits,
        "rank": profile.rank,
        "length": profile.max_length,
        "checkpointing": profile.gradient_checkpointing,
    }
    pair = training | {"method": "logit", "teacher_bits": taught}
    if profile.kd_chunk:
        pair |= {"method": "logit_chunked", "chunk": profile.kd_chunk}
    for phase, model, setting, plan in (
        ("traces", "teacher", "generation_batch", writing),
        ("training", "student", "batch_size", training),
        ("evaluation", "student", "evaluation_batch", asking),
        ("logits", "kd_student", "kd_batch_size", pair),
    ):
        rows = getattr(profile, setting)
        try:
            if plan is pair:
                plan["teacher"] = load_shape(profile.kd_teacher)
            shape = load_shape(getattr(profile, model))
            needed = plan_memory(shape, batch=rows, **plan).total / GIB + SPARE
        except CourseError as error:
            yield Check("INFO", phase, str(error))
            continue
        text = f"{needed:.1f} GiB of a GPU (estimated)"
        cure = f"a DISTILL_{setting.upper()} below {rows}; see notebook 10"
        status = "INFO" if gib is None else "OK" if needed <= gib else "FAIL"
        yield Check(status, phase, text, cure)


def model_checks(profile: Profile) -> Iterator[Check]:
    """Is every model here, or is it still to be downloaded?"""
    names = (profile.teacher, profile.student)
    names += (profile.kd_teacher, profile.kd_student)
    offline = os.environ.get("HF_HUB_OFFLINE", "0") not in ("", "0")
    for name in dict.fromkeys(names):
        weights = Path(name) / "model.safetensors"
        whole = weights.is_file() and weights.stat().st_size > 100_000
        if Path(name).parent == MODELS and not whole:
            cure = "with all kernels shut down, `git checkout -- data/models`"
            yield Check("FAIL", "model", f"{weights} is not whole", cure)
        elif Path(name).is_dir() or in_cache(name):
            yield Check("OK", "model", f"{Path(name).name} is here")
        elif offline:
            text = f"{name} is to be downloaded, which HF_HUB_OFFLINE forbids"
            yield Check("FAIL", "model", text, "unset HF_HUB_OFFLINE")
        else:
            yield Check("INFO", "model", f"{name} is to be downloaded once")


def in_cache(name: str) -> bool:
    """Were all files of this hub id downloaded?"""
    from huggingface_hub import try_to_load_from_cache

    where = partial(try_to_load_from_cache, name, revision=revision_of(name))
    index = where("model.safetensors.index.json")
    files = ["config.json", "tokenizer_config.json", "model.safetensors"]
    if isinstance(index, str):  # large weights come in several files
        shards = json.loads(Path(index).read_text("utf-8"))["weight_map"]
        files[2:] = set(shards.values())
    return all(isinstance(where(file), str) for file in files)
