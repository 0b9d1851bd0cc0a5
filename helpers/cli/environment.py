"""Make, update and find the environment that environment.yml describes.

It imports the standard library alone: it runs before anything is installed.
uv installs, pip where there is no uv; both say themselves what goes on.
"""

from __future__ import annotations

import hashlib
import os
import platform
import re
import subprocess
import sys
from importlib.metadata import distributions
from pathlib import Path

from helpers import CourseError

REPOSITORY = Path(__file__).resolve().parents[2]
VENV = REPOSITORY / ".venv"
STAMP = VENV / "distill-stamp"  # written when a set-up has finished
OLDEST, NEWEST = (3, 11), (3, 14)
LONGEST_ON_WINDOWS = 66  # characters: some file of torch adds 192, of 260


class SetupError(CourseError):
    """The environment cannot be made; the text says why, and the cure."""


def read_pip_list() -> list[str]:
    """The pins that end environment.yml, its `pip:` list, without `-e .`.

    Raises SetupError if the list is missing or a line is no pin.
    """
    path = REPOSITORY / "environment.yml"
    _, _, listed = path.read_text("utf-8", "replace").partition("- pip:\n")
    lines = [line.partition("#")[0].strip() for line in listed.splitlines()]
    pins = [line for line in lines if line not in ("", "- -e .")]
    for line in pins or ["nothing"]:
        if not re.fullmatch(r"- [\w.-]+==[\w.]+", line):
            raise SetupError(
                f"{path}: expected `- name==version` in the list `- pip:`, "
                f"found {line[:80]}. Correct it, and type the command again."
            )
    return [line.removeprefix("- ") for line in pins]


def unmet_pins() -> list[str]:
    """The pins that this Python does not meet; +cpu and the like may differ.

    More than one version is there where one hides another.
    """
    unmet = []
    for pin in read_pip_list():
        name, _, version = pin.partition("==")
        versions = [d.version.split("+")[0] for d in distributions(name=name)]
        if version not in versions:
            unmet.append(pin)
    return unmet


def output_of(python: Path | str, code: str) -> str:
    """What a Python prints that does not see this folder; "" if it fails."""
    command = [str(python), "-EP", "-X", "utf8", "-c", code]
    try:
        done = subprocess.run(command, capture_output=True)
    except OSError:
        return ""
    return done.stdout.decode("utf-8", "replace")


def venv_python() -> Path:
    """The path that .venv's Python has, whether it exists or not."""
    names = ("Scripts", "python.exe") if os.name == "nt" else ("bin", "python")
    return VENV.joinpath(*names)


def fingerprint() -> str:
    """A hash of all that decides what .venv holds; "" if it cannot run."""
    code = "import sys; print(sys.version_info[:2])"
    version = output_of(venv_python(), code)
    digest = hashlib.sha256(f"{version}{REPOSITORY}".encode())
    for name in ("environment.yml", "pyproject.toml"):
        digest.update((REPOSITORY / name).read_bytes())
    return digest.hexdigest() if version else ""


def find() -> str | None:
    """The Python that has every package, or None if there is none."""
    inside = VENV.exists() and VENV.samefile(sys.prefix)
    if not inside and not unmet_pins():  # conda's, if it knows this folder
        code = "import helpers; print(helpers.__path__[0])"
        folder = Path(output_of(sys.executable, code).strip())
        if folder.resolve() == REPOSITORY / "helpers":
            return sys.executable
    if not STAMP.exists() or STAMP.read_text("utf-8") != fingerprint():
        return None
    return sys.executable if inside else str(venv_python())


def ensure() -> str:
    """The Python that has every package; makes .venv if need be.

    Raises SetupError with the cure when the environment cannot be made.
    """
    python = find()
    if python is not None:
        return python
    if VENV.is_symlink():  # making it anew would empty what it points to
        raise SetupError(
            f"{VENV} is a link. Delete the link (not the folder behind it), "
            "and type the command again: it makes an environment here."
        )
    pins = read_pip_list()
    alone = [pin for pin in pins if pin.startswith("unsloth")]
    if not has_nvidia_gpu():  # Unsloth's CPU backend needs nothing else
        pins = [pin for pin in pins if pin not in alone]
    alone += ["--no-build-isolation", "-e", str(REPOSITORY)]
    steps = [pins, ["--no-deps", *alone]]
    if STAMP.exists() and fingerprint():
        print("The pins have changed: updating .venv.", file=sys.stderr)
        for requirements in steps:  # a pin that does not exist stops here
            install(["--dry-run", *requirements])
        STAMP.unlink()  # from here on it is half-made
    else:
        check_python()
        check_place()
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
    # Unsloth asks for a certifi that some indexes do not have yet; it holds
    # certificates, and any recent one will do.
    override = VENV / "override.txt"
    override.write_text("certifi\n", "utf-8")
    links = os.environ.get("PIP_FIND_LINKS", "")  # which uv does not read
    python = str(venv_python())
    uv = ["uv", "pip", "install", "--python", python]
    uv += ["--override", str(override)]
    uv += ["--find-links", links] if os.path.isdir(links) else []
    tools = [uv, ["pip", "install"]]
    if "--no-deps" not in requirements:  # torch and most others
        uv += ["--compile-bytecode"]
        if sys.platform == "linux" and not (links or has_nvidia_gpu()):
            tools[:0] = [[*uv, "--torch-backend", "cpu"]]  # no CUDA's 3 GB
    for tool in tools:
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
    variables = {"UV_COMPILE_BYTECODE_TIMEOUT": "600"}
    if os.name == "nt":  # OneDrive refuses hard links
        variables["UV_LINK_MODE"] = "copy"
    variables |= {**os.environ, "PIP_USER": "0"}
    variables.pop("PYTHONPATH", None)
    return subprocess.run(command, stdout=2, env=variables).returncode == 0


def check_place() -> None:
    """SetupError where Windows could not make or fill .venv."""
    if os.name != "nt":
        return
    if len(str(REPOSITORY)) > LONGEST_ON_WINDOWS:
        raise SetupError(
            f"{REPOSITORY} is too long a path for the packages' files. Copy "
            "the course to a short one, as C:\\distill."
        )
    if VENV.exists() and VENV.samefile(sys.prefix):
        raise SetupError(
            "A half-made .venv runs this command and cannot be replaced. Type "
            "`deactivate`, close JupyterLab, and type the command again."
        )


def check_python(version: tuple[int, ...] = sys.version_info[:2]) -> str:
    """This Python; SetupError if the pinned packages do not exist for it."""
    arm = platform.machine().lower() in ("arm64", "aarch64")
    release = int(platform.mac_ver()[0].partition(".")[0] or 0)
    old = sys.platform == "darwin" and (not arm or release < 14)
    if old or (os.name == "nt" and arm):
        raise SetupError(
            "torch exists for macOS 14 and later on Apple Silicon (with a "
            "Python that is native there), for Windows on Intel or AMD, and "
            "for Linux. Elsewhere use a hosted machine, as Colab."
        )
    if not OLDEST <= version <= NEWEST:
        raise SetupError(
            f"This is Python {version[0]}.{version[1]} ({sys.executable}), "
            "and the pinned packages need 3.11 to 3.14: type the command with "
            "one of these, as `python3.13 -m helpers run` (on Windows "
            "`py -3.13 -m helpers run`); "
            "https://www.python.org/downloads has them."
        )
    return sys.executable


def has_nvidia_gpu() -> bool:
    """Does nvidia-smi run here and list a GPU?"""
    listing = subprocess.run("nvidia-smi -L", shell=True, capture_output=True)
    return listing.returncode == 0 and b"GPU" in listing.stdout
