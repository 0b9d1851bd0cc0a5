"""Make, update and find the environment that environment.yml describes.

It imports the standard library alone: it runs before anything is installed.
uv installs, pip where there is no uv; both say themselves what goes on.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlparse
from urllib.request import url2pathname

from helpers import CourseError

REPOSITORY = Path(__file__).resolve().parents[2]
VENV = REPOSITORY / ".venv"
STAMP = VENV / "distill-stamp"  # written when a set-up has finished
OLDEST, NEWEST = (3, 11), (3, 14)


class SetupError(CourseError):
    """The environment cannot be made; the text says why, and the cure."""


def read_pip_list(path: Path) -> list[str]:
    """The lines of environment.yml's `pip:` list, without `-e .`.

    Raises SetupError if the list is missing or a line cannot be read.
    """
    if not path.is_file():
        raise SetupError(f"{path} is missing: the course is not complete.")
    text = re.sub(r"(^|\s)#.*$", "", path.read_text("utf-8"), flags=re.M)
    listed = re.search(r"^( *)- pip: *\n((?:\1 +.*\n|\s*\n)+)", text, re.M)
    pins = []
    for line in listed[2].splitlines() if listed else []:
        item = re.fullmatch(r" *- +([\"']?)(\S.*?)\1 *", line)
        if item:
            pins.append(item[2])
        elif line.strip():
            raise SetupError(f"{path}: cannot read the line {line!r}.")
    if not pins:
        raise SetupError(f"{path} has no `pip:` list with packages in it.")
    return [pin for pin in pins if pin != "-e ."]


def unmet_pins() -> list[str]:
    """The lines of environment.yml that this Python does not meet."""
    pins = read_pip_list(REPOSITORY / "environment.yml")
    return [pin for pin in pins if not meets_pin(pin)]


def meets_pin(requirement: str) -> bool:
    """Is `name==version` installed? A local part (+cpu) is ignored."""
    name, _, wanted = requirement.partition("==")
    found = importlib.metadata.distributions(name=name)
    return any(package.version.split("+")[0] == wanted for package in found)


def installed_editable() -> bool:
    """Is this very folder installed in this Python with `-e .`?"""
    for package in importlib.metadata.distributions(name="distill-course"):
        text = package.read_text("direct_url.json")
        url = urlparse(json.loads(text)["url"] if text else "")
        if Path(url2pathname(url.path)).resolve() == REPOSITORY:
            return True
    return False


def venv_python() -> Path:
    """The path that .venv's Python has, whether it exists or not."""
    names = ("Scripts", "python.exe") if os.name == "nt" else ("bin", "python")
    return VENV.joinpath(*names)


def fingerprint() -> str:
    """A hash of all that decides what .venv holds; "" if it cannot run."""
    code = "import sys; print(sys.version)"
    try:
        command = [venv_python(), "-I", "-c", code]
        version = subprocess.run(command, capture_output=True).stdout
    except OSError:
        return ""
    digest = hashlib.sha256(version + str(REPOSITORY).encode())
    for name in ("environment.yml", "pyproject.toml"):
        digest.update((REPOSITORY / name).read_bytes())
    return digest.hexdigest() if version else ""


def find() -> str | None:
    """The Python that has every package, or None if there is none."""
    inside_venv = VENV.exists() and VENV.samefile(sys.prefix)
    if not inside_venv and not unmet_pins() and installed_editable():
        return sys.executable
    if not STAMP.exists() or STAMP.read_text("utf-8") != fingerprint():
        return None
    return sys.executable if inside_venv else str(venv_python())


def ensure() -> str:
    """The Python that has every package; makes .venv if need be.

    Raises SetupError with the cure when the environment cannot be made.
    """
    python = find()
    if python is not None:
        return python
    pins = read_pip_list(REPOSITORY / "environment.yml")
    unsloth = [pin for pin in pins if pin.startswith("unsloth")]
    if not has_nvidia_gpu():  # Unsloth's CPU backend needs nothing else
        pins = [pin for pin in pins if pin not in unsloth]
    course = ["--no-build-isolation", "-e", str(REPOSITORY)]
    steps = [pins, ["--no-deps", *unsloth, *course]]
    if STAMP.exists() and fingerprint():
        print("The pins have changed: updating .venv.", file=sys.stderr)
        for requirements in steps:  # a pin that does not exist stops here
            install(["--dry-run", *requirements])
        STAMP.unlink()  # from here on it is half-made
    else:
        check_python()
        print("Making .venv (once; some minutes).", file=sys.stderr)
        base = getattr(sys, "_base_executable", sys.executable)
        if not run([base, "-m", "venv", "--clear", str(VENV)]):
            raise SetupError(
                f"{VENV} cannot be made; the lines above say why. On Debian "
                "and Ubuntu, `sudo apt install python3-venv` often helps."
            )
        run([str(venv_python()), "-m", "pip", "install", "-q", "uv"])
    for requirements in steps:
        install(requirements)
    STAMP.write_text(fingerprint(), "utf-8")
    return str(venv_python())


def install(requirements: list[str]) -> None:
    """Install by uv, or by pip if that fails. Raises SetupError."""
    python = str(venv_python())
    links = os.environ.get("PIP_FIND_LINKS", "")
    if os.path.isdir(links):
        requirements = ["--find-links", links, *requirements]
    # Unsloth asks for a certifi that some indexes do not have yet; it holds
    # certificates, and any recent one will do.
    override = VENV / "override.txt"
    override.write_text("certifi\n", "utf-8")
    uv = ["uv", "pip", "install", "--python", python]
    if "--no-deps" not in requirements:  # the few others when first imported
        uv.append("--compile-bytecode")
    for tool in ([*uv, "--override", str(override)], ["pip", "install"]):
        if run([python, "-m", *tool, *requirements]):
            return
    raise SetupError(
        "The set-up failed; the lines above say why. Check the network (or "
        "set HTTPS_PROXY, or PIP_FIND_LINKS to a folder of wheels), the free "
        "disk (3 GiB; 9 with CUDA) and the pins in environment.yml, and type "
        "the command again: what is downloaded already is kept."
    )


def run(command: list[str]) -> bool:
    """Did the program succeed? Its words go to stderr."""
    variables = {**os.environ, "PIP_USER": "0"}
    variables.pop("PYTHONPATH", None)
    return subprocess.run(command, stdout=2, env=variables).returncode == 0


def check_python(version: tuple[int, ...] = sys.version_info[:2]) -> str:
    """This Python; SetupError if the pinned packages do not exist for it."""
    if not OLDEST <= version <= NEWEST:
        raise SetupError(
            f"This is Python {version[0]}.{version[1]} ({sys.executable}), "
            "and the pinned packages need 3.11 to 3.14: type the command with "
            "one of these, as `python3.11 -m helpers run`; "
            "https://www.python.org/downloads has them."
        )
    return sys.executable


def has_nvidia_gpu() -> bool:
    """Does nvidia-smi run here and list a GPU?"""
    try:
        command = ["nvidia-smi", "-L"]
        listing = subprocess.run(command, capture_output=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return listing.returncode == 0 and b"GPU" in listing.stdout
