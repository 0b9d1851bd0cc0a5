"""`python3 -m helpers doctor`: is this machine ready? One line a check.

It imports the standard library alone, so that it also runs, and says what to
do, where the environment does not exist yet.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from helpers import environment
from helpers.commands import command_parser
from helpers.doctor_fit import fit_lines, gpu_memory_gib, hub_lines
from helpers.environment import REPOSITORY, SetupError
from helpers.profiles import get_profile

MODELS = REPOSITORY / "data" / "models"
RUNS = REPOSITORY / "data" / "runs"
MINI_MODELS = ("mini-qwen3", "mini-qwen3-small", "mini-gemma3")
MEMORY_GIB = {"mini": 4, "laptop": 16, "full": 16}
DISK_GIB = {"mini": 1, "laptop": 15, "full": 30}
GPU_GIB = 24
SUBPROCESS_SECONDS = 180
MAKE = "`python3 -m helpers run` makes it and then runs the course"

UNSLOTH = """
import torch, unsloth
where = "CUDA" if torch.cuda.is_available() else "CPU"
print(f"\\n{unsloth.__version__}, {where} backend")
"""
FOUR_BIT = """
import torch, helpers
from bitsandbytes.functional import dequantize_4bit, quantize_4bit
torch.manual_seed(0)
matrix = torch.randn(64, 64)
small, state = quantize_4bit(matrix, quant_type="nf4")
error = (dequantize_4bit(small, state) - matrix).abs().mean().item()
assert small.numel() * 2 == matrix.numel() and error < 0.15, error
print(f"\\n64x64 to NF4 and back on the CPU, mean error {error:.3f}")
"""


class Check(NamedTuple):
    """One line: OK, INFO (worth knowing) or FAIL, which has a cure."""

    status: str
    name: str
    text: str
    cure: str = ""

    def __str__(self) -> str:
        line = f"{self.status:<5}{self.name:<18}{self.text}"
        return f"{line}. Cure: {self.cure}." if self.cure else line


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


def all_checks(profile: str) -> Iterator[Check]:
    """Yield the checks one by one, the quick ones first.

    The slow ones, which import the libraries, run meanwhile.
    """
    ready = environment.find() is not None
    with ThreadPoolExecutor(3) as pool:
        hub = pool.submit(hub_check)
        slow = [unsloth_check, four_bit_check] if ready else []
        running = [pool.submit(check) for check in slow]
        yield python_check()
        yield memory_check(profile)
        yield disk_check(profile)
        yield writing_check(RUNS)
        yield gpu_check(profile)
        yield from model_checks(profile)
        yield from fit_checks(profile)
        yield hub.result()
        if not ready:
            yield Check("FAIL", "environment", "it is not made yet", MAKE)
            return
        yield Check("OK", "environment", sys.prefix)
        yield from package_checks()
        yield widgets_check(Path(sys.prefix))
        for check in running:
            yield check.result()


def python_check() -> Check:
    """Do the pinned packages exist for this Python?"""
    version = sys.version.split()[0]
    try:
        environment.check_python((sys.version_info[0], sys.version_info[1]))
    except SetupError as error:
        reason, _, cure = str(error).partition(". ")
        return Check("FAIL", "Python", reason, cure.rstrip("."))
    return Check("OK", "Python", f"{version} ({sys.executable})")


def memory_check(profile: str) -> Check:
    """Is there as much memory as the profile needs?"""
    total = total_memory_gib()
    if total is None:
        return Check("INFO", "memory", "its size cannot be read here")
    needed = MEMORY_GIB[profile]
    text = f"{total:.1f} GiB, the profile {profile} needs {needed}"
    if total < 0.9 * needed:  # a machine sold as 4 GB shows less
        cure = (
            "use a smaller profile"
            if profile != "mini"
            else ("use a machine with more memory, or a free notebook service")
        )
        return Check("FAIL", "memory", text, cure)
    return Check("OK", "memory", text)


def total_memory_gib() -> float | None:
    """Return the size of the memory; None where it cannot be read."""
    try:
        import psutil

        return psutil.virtual_memory().total / 2**30
    except ImportError:
        pass
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    except (AttributeError, ValueError, OSError):
        return None


def disk_check(profile: str) -> Check:
    """Is there as much free disk as the profile needs?"""
    free = shutil.disk_usage(REPOSITORY).free / 2**30
    needed = DISK_GIB[profile]
    text = f"{free:.1f} GiB free, the profile {profile} needs {needed}"
    if free < needed:
        return Check("FAIL", "disk", text, f"free some, data/runs is {RUNS}")
    return Check("OK", "disk", text)


def writing_check(folder: Path) -> Check:
    """Can the results of a run be written?"""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=folder) as file:
            file.write(b"x")
            file.flush()
    except OSError as error:
        cure = "make the folder yours, or clone the course where you may write"
        return Check("FAIL", "write data/runs", str(error), cure)
    return Check("OK", "write data/runs", "a file was written and removed")


def gpu_check(profile: str) -> Check:
    """Only the full profile needs a GPU."""
    if environment.has_nvidia_gpu():
        return Check("OK", "NVIDIA GPU", "nvidia-smi lists one")
    if profile == "full":
        cure = f"a machine with a {GPU_GIB} GB GPU, or a smaller profile"
        return Check("FAIL", "NVIDIA GPU", "none was found", cure)
    return Check("INFO", "NVIDIA GPU", "none, the CPU does the work")


def fit_checks(profile: str) -> Iterator[Check]:
    """Would every phase fit, and what is to be fetched for it?"""
    if profile == "mini":
        return
    settings = get_profile(profile)
    gpu = gpu_memory_gib()
    if gpu is None and profile != "full":
        gpu = total_memory_gib()
    for line in (*fit_lines(settings, gpu), *hub_lines(settings)):
        yield Check(*line)


def model_checks(profile: str) -> Iterator[Check]:
    """Are the weights of the mini models here, and whole?"""
    for name in MINI_MODELS:
        path = MODELS / name / "model.safetensors"
        if path.is_file() and path.stat().st_size > 100_000:
            size = path.stat().st_size / 1e6
            yield Check("OK", name, f"{size:.1f} MB of weights")
        elif profile == "mini":
            cure = (
                "`git checkout -- data/models` brings it back, "
                "`python3 -m helpers minilab` trains it anew"
            )
            yield Check("FAIL", name, f"no whole {path.name} in it", cure)
        else:
            text = f"not here, the profile {profile} does not need it"
            yield Check("INFO", name, text)


def hub_check(address: str = "https://huggingface.co") -> Check:
    """Is the hub reachable? Never an error: the mini profile needs none."""
    answers: list[bool] = []

    def ask() -> None:
        from urllib.request import Request, urlopen

        try:
            with urlopen(Request(address, method="HEAD"), timeout=3):
                answers.append(True)
        except (OSError, ValueError):
            pass

    # In a thread, because a look-up of the name knows no time limit.
    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(3)
    if answers:
        return Check("INFO", "hub", f"{address} answers")
    text = f"{address} does not answer, the mini profile does not need it"
    return Check("INFO", "hub", text)


def package_checks() -> Iterator[Check]:
    """Compare every package with its pin."""
    path = REPOSITORY / "environment.yml"
    pins = environment.split_pins(environment.read_pip_list(path))
    for pin in pins.ordinary + pins.unsloth:
        name, _, wanted = pin.partition("==")
        version = environment.installed_version(name)
        if environment.meets_pin(pin):
            yield Check("OK", name, f"{version}")
            continue
        text = f"{version or 'not installed'}, the pin is {wanted}"
        alone = "--no-deps " if pin in pins.unsloth else ""
        cure = f"`{sys.executable} -m pip install {alone}{pin}`"
        yield Check("FAIL", name, text, cure)


def widgets_check(prefix: Path) -> Check:
    """Does JupyterLab find the part of ipywidgets that draws sliders?"""
    folder = prefix / "share" / "jupyter" / "labextensions"
    if (folder / "@jupyter-widgets" / "jupyterlab-manager").is_dir():
        return Check("OK", "widgets", "JupyterLab has the widget manager")
    cure = (
        f"`{sys.executable} -m pip install --force-reinstall --no-deps "
        "jupyterlab_widgets`"
    )
    return Check("FAIL", "widgets", f"no widget manager in {folder}", cure)


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
