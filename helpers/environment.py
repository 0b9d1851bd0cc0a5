"""Make, repair and find the environment that environment.yml describes.

It imports the standard library alone: it runs before anything is installed.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlparse
from urllib.request import url2pathname

from helpers.setup_steps import SetupError, StepFailed, Steps, setup_lock

REPOSITORY = Path(__file__).resolve().parent.parent
VENV = REPOSITORY / ".venv"
NAME = "distill-course"
OLDEST, NEWEST = (3, 11), (3, 14)
FREE_GIB = 3.0


class Pins(NamedTuple):
    """The pip list of environment.yml, split by how it is installed."""

    ordinary: list[str]
    unsloth: list[str]
    editable: bool


def read_pip_list(path: Path) -> list[str]:
    """Return the lines of the `pip:` list, without comments and quotes.

    Raises SetupError if the list is missing or a line cannot be read.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise SetupError(
            f"{path} cannot be read ({error.strerror}): "
            "run the commands in a complete clone of the course."
        ) from error
    found: list[str] = []
    indent = None
    for raw in text.splitlines():
        line = re.sub(r"(^|\s)#.*$", "", raw).rstrip()
        if not line:
            continue
        depth = len(line) - len(line.lstrip())
        if indent is None:
            if re.fullmatch(r"\s*-\s*pip:\s*", line):
                indent = depth
        elif depth <= indent:
            break
        else:
            match = re.fullmatch(r"\s*-\s+[\"']?(.+?)[\"']?\s*", line)
            if match is None:
                raise SetupError(f"{path}: cannot read the line {raw!r}.")
            found.append(match[1])
    if not found:
        raise SetupError(f"{path} has no `pip:` list with packages in it.")
    return found


def split_pins(requirements: Iterable[str]) -> Pins:
    """Separate the Unsloth packages and `-e .` from the ordinary pins."""
    lines = list(requirements)
    editable = "-e ." in lines
    pins = [line for line in lines if line != "-e ."]
    unsloth = [line for line in pins if line.startswith("unsloth")]
    ordinary = [line for line in pins if line not in unsloth]
    return Pins(ordinary, unsloth, editable)


def installed_version(name: str) -> str | None:
    """Return the version of a package in this Python, None without it."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def meets_pin(requirement: str) -> bool:
    """Is `name==version` installed? A local part (+cpu) is ignored."""
    name, _, wanted = requirement.partition("==")
    version = installed_version(name)
    return version is not None and version.split("+")[0] == wanted


def installed_editable() -> bool:
    """Is this very folder installed in this Python with `-e .`?"""
    for found in importlib.metadata.distributions(name=NAME):
        text = found.read_text("direct_url.json")
        if text is None:
            continue  # the folder that the build left beside the sources
        url = urlparse(json.loads(text)["url"])
        folder = Path(url2pathname(url.path))
        if folder.exists() and folder.samefile(REPOSITORY):
            return True
    return False


def unmet_pins() -> list[str]:
    """Return the lines of environment.yml that this Python does not meet."""
    pins = split_pins(read_pip_list(REPOSITORY / "environment.yml"))
    unmet = [p for p in pins.ordinary + pins.unsloth if not meets_pin(p)]
    if pins.editable and not installed_editable():
        unmet.append("-e .")
    return unmet


def venv_python() -> Path:
    """Return the path that .venv's Python has, whether it exists or not."""
    if os.name == "nt":
        return VENV / "Scripts" / "python.exe"
    return VENV / "bin" / "python"


def venv_version() -> str | None:
    """Return the version of .venv's Python; None if it cannot run."""
    code = "import sys; print('%d.%d.%d' % sys.version_info[:3])"
    try:
        done = subprocess.run(
            [str(venv_python()), "-I", "-c", code],
            capture_output=True,
            text=True,
            timeout=60,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def fingerprint(version: str) -> str:
    """Hash all that decides what .venv holds: a change asks for an update."""
    digest = hashlib.sha256()
    for name in ("environment.yml", "pyproject.toml"):
        digest.update((REPOSITORY / name).read_bytes() + b"\0")
    digest.update(f"{version}\0{REPOSITORY}".encode())
    return digest.hexdigest()


def stamp_is_valid(version: str | None) -> bool:
    """Was .venv finished, from these very files, by this Python version?"""
    try:
        stamp = (VENV / "distill-stamp").read_text(encoding="utf-8")
    except OSError:
        return False
    return version is not None and stamp == fingerprint(version)


def find() -> str | None:
    """Return the Python that has every package, or None if there is none."""
    inside_venv = VENV.exists() and VENV.samefile(sys.prefix)
    if not inside_venv and not unmet_pins():
        return sys.executable
    if not stamp_is_valid(venv_version()):
        return None
    return sys.executable if inside_venv else str(venv_python())


def ensure() -> str:
    """Return the Python that has every package; make .venv if need be.

    Raises SetupError with the cure when the environment cannot be made.
    """
    python = find()
    if python is not None:
        return python
    try:
        with setup_lock(REPOSITORY / "data" / "runs" / "setup.lock"):
            # another run may have made it while this one waited
            return find() or _make()
    except OSError as error:
        raise SetupError(
            f"The environment cannot be written: {error}. Put the course in "
            "a folder of your own, on a disk that is not full."
        ) from error


def check_python(version: tuple[int, int]) -> None:
    """Raise SetupError unless the pinned packages exist for `version`."""
    if OLDEST <= version <= NEWEST:
        return
    names = [f"python3.{minor}" for minor in range(OLDEST[1], NEWEST[1] + 1)]
    here = [name for name in names if shutil.which(name)]
    cure = (
        f"`{here[-1]} -m helpers run` uses the one that is installed here."
        if here
        else "Install one from https://www.python.org/downloads/ first."
    )
    raise SetupError(
        "The pinned packages need Python 3.11, 3.12, 3.13 or 3.14; this is "
        f"{version[0]}.{version[1]} ({sys.executable}). {cure}"
    )


def has_nvidia_gpu() -> bool:
    """Does nvidia-smi run here and list a GPU?"""
    program = shutil.which("nvidia-smi")
    if program is None:
        return False
    try:
        listing = subprocess.run(
            [program, "-L"], capture_output=True, text=True, timeout=30
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return listing.returncode == 0 and "GPU" in listing.stdout


def _make() -> str:
    steps = Steps(VENV, python=str(venv_python()), repository=REPOSITORY)
    stamp = VENV / "distill-stamp"
    version = venv_version()
    finished_once = version is not None and stamp.exists()
    try:
        if version is None or not (finished_once or steps.pip_works()):
            check_python((sys.version_info[0], sys.version_info[1]))
            _check_disk()
            steps.say("Making the environment in .venv (once; some minutes).")
            steps.make_venv()
            again = False
        elif finished_once:
            steps.say("The pins have changed: updating .venv.")
            stamp.unlink()  # from here on it is half-made
            again = False
        else:
            steps.say("The last set-up did not finish: repairing .venv.")
            again = True
        pins = split_pins(read_pip_list(REPOSITORY / "environment.yml"))
        steps.install(
            pins.ordinary, pins.unsloth, gpu=has_nvidia_gpu(), again=again
        )
        if pins.editable:
            steps.install_course()
        _write_stamp(stamp)
        steps.say("The environment is ready.")
    except StepFailed:
        raise SetupError(steps.report()) from None
    finally:
        steps.close()
    return str(venv_python())


def _write_stamp(stamp: Path) -> None:
    version = venv_version()
    if version is None:
        raise StepFailed
    temporary = stamp.with_suffix(".tmp")
    temporary.write_text(fingerprint(version), encoding="utf-8")
    os.replace(temporary, stamp)


def _check_disk() -> None:
    free = shutil.disk_usage(REPOSITORY).free / 2**30
    if free < FREE_GIB:
        raise SetupError(
            f"The environment needs {FREE_GIB:.0f} GiB of disk (9 GiB with "
            f"CUDA); {REPOSITORY} has {free:.1f} GiB left. Free some first."
        )
