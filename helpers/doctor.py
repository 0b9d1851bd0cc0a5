"""`python3 -m helpers doctor`: is this machine ready? One line a check.

It imports the standard library alone, so that it also runs, and says what to
do, where the environment does not exist yet.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from helpers import environment
from helpers.commands import command_parser
from helpers.doctor_fit import fit_lines, gpu_memory_gib, hub_lines
from helpers.doctor_hub import hub_check
from helpers.doctor_probes import (
    Check,
    four_bit_check,
    gpu_check,
    unsloth_check,
)
from helpers.environment import REPOSITORY, SetupError
from helpers.profiles import get_profile

MODELS = REPOSITORY / "data" / "models"
RUNS = REPOSITORY / "data" / "runs"
MINI_MODELS = ("mini-qwen3", "mini-qwen3-small", "mini-gemma3")
MEMORY_GIB = {"mini": 4, "laptop": 16, "full": 16}
DISK_GIB = {"mini": 1, "laptop": 15, "full": 30}
MAKE = "`python3 -m helpers run` makes it and then runs the course"


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
        hub = pool.submit(hub_check, profile)
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
