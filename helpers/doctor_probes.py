"""`doctor`: do the libraries work here? Each is tried in a Python of its own.

Standard library only, as helpers.doctor.
"""

from __future__ import annotations

import subprocess
import sys
from typing import NamedTuple

from helpers import environment
from helpers.environment import REPOSITORY

GPU_GIB = 24
SUBPROCESS_SECONDS = 180

NO_GPU = "no GPU"
TORCH = f"""
import torch
seen = torch.cuda.is_available()
print("\\n" + (torch.cuda.get_device_name() if seen else "{NO_GPU}"))
"""
UNSLOTH = """
import torch, unsloth
where = "CUDA" if torch.cuda.is_available() else "CPU"
print(f"\\n{unsloth.__version__}, {where} backend")
"""
FOUR_BIT = """
import torch, helpers
from bitsandbytes.functional import dequantize_4bit, quantize_4bit
torch.manual_seed(0)
device = "cuda" if torch.cuda.is_available() else "cpu"
matrix = torch.randn(64, 64).to(device)
small, state = quantize_4bit(matrix, quant_type="nf4")
error = (dequantize_4bit(small, state) - matrix).abs().mean().item()
assert small.numel() * 2 == matrix.numel() and error < 0.15, error
where = {"cuda": "GPU", "cpu": "CPU"}[device]
print(f"\\n64x64 to NF4 and back on the {where}, mean error {error:.3f}")
"""


class Check(NamedTuple):
    """One line: OK, INFO (worth knowing) or FAIL, which has a cure."""

    status: str
    name: str
    text: str
    cure: str = ""

    def __str__(self) -> str:
        line = f"{self.status:<5}{self.name:<19} {self.text}"
        return f"{line}. Cure: {self.cure}." if self.cure else line


def gpu_check(profile: str) -> Check:
    """Only full needs a GPU; one that is to be used, torch must see."""
    if environment.has_nvidia_gpu():
        return listed_gpu_check(profile)
    if profile == "full":
        cure = f"a machine with a {GPU_GIB} GB GPU, or a smaller profile"
        return Check("FAIL", "NVIDIA GPU", "none was found", cure)
    return Check("INFO", "NVIDIA GPU", "none, the CPU does the work")


def listed_gpu_check(profile: str) -> Check:
    """Does torch see the GPU that nvidia-smi lists? mini does not ask."""
    torch = environment.installed_version("torch")
    if profile == "mini" or torch is None:  # then there is no environment
        return Check("OK", "NVIDIA GPU", "nvidia-smi lists one")
    worked, last = last_line_of(TORCH)
    if worked and last != NO_GPU:
        return Check("OK", "NVIDIA GPU", f"torch {torch} sees {last}")
    text = f"nvidia-smi lists one, but torch {torch} does not see it"
    text += "" if worked else f" ({last})"
    cure = (
        f"install the build of torch {torch.split('+')[0]} for your driver's "
        "CUDA (`nvidia-smi` names its version, "
        "https://pytorch.org/get-started/locally has the command)"
    )
    return Check("FAIL", "NVIDIA GPU", text, cure)


def unsloth_check() -> Check:
    """Can Unsloth be imported? If not, transformers + PEFT take its place."""
    worked, text = last_line_of(UNSLOTH)
    if worked:
        return Check("OK", "Unsloth", text)
    text = f"cannot load ({text}), transformers + PEFT are used instead"
    return Check("INFO", "Unsloth", text)


def four_bit_check() -> Check:
    """Can bitsandbytes quantize to 4 bits on this machine?"""
    worked, text = last_line_of(FOUR_BIT)
    if worked:
        return Check("OK", "4-bit", text)
    cure = f"`{sys.executable} -m pip install --force-reinstall bitsandbytes`"
    return Check("FAIL", "4-bit", text, cure)


def last_line_of(code: str) -> tuple[bool, str]:
    """Run code in a Python of its own; return (worked, its last line)."""
    try:
        done = subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            timeout=SUBPROCESS_SECONDS,
            cwd=REPOSITORY,
        )
    except subprocess.TimeoutExpired:
        return False, f"no answer within {SUBPROCESS_SECONDS} s"
    worked = done.returncode == 0
    lines = (done.stdout if worked else done.stderr).strip().splitlines()
    return worked, lines[-1] if lines else f"exit status {done.returncode}"
