"""Make, repair and find the environment that environment.yml describes.

It imports the standard library alone: it runs before anything is installed.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, NamedTuple
from urllib.parse import urlparse
from urllib.request import url2pathname

REPOSITORY = Path(__file__).resolve().parents[2]
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


STILL_ALIVE = 30  # seconds between two signs of life
LOG_LINES = 15
CURES = (
    (
        ("no space left", "disk quota", "not enough space"),
        "The disk is full: free some GiB and type the command again.",
    ),
    (
        (
            "dns error",
            "name resolution",
            "failed to fetch",
            "could not connect",
            "connection",
            "timed out",
            "network is unreachable",
            "proxy",
        ),
        "The package index cannot be reached: check the network (or set "
        "HTTPS_PROXY, or PIP_FIND_LINKS to a folder of wheels) and type the "
        "command again; what is downloaded already is kept.",
    ),
    (
        ("ensurepip",),
        "This Python cannot make environments: install its venv module "
        "(Debian and Ubuntu: sudo apt install python3-venv).",
    ),
    (
        ("permission denied", "access is denied"),
        "A file cannot be written: close programs that use .venv, see who "
        "owns the folder, and type the command again.",
    ),
    (
        ("no matching distribution", "no solution found", "no wheels"),
        "A pinned package does not exist for this machine: the course needs "
        "Python 3.11 to 3.14 on 64-bit Linux or Windows, or macOS 14 and "
        "newer on Apple silicon.",
    ),
)


class SetupError(Exception):
    """The environment cannot be made; the text says why, and the cure."""


class StepFailed(Exception):
    """One program of the set-up ended with an error (or is missing)."""


@contextlib.contextmanager
def setup_lock(path: Path) -> Iterator[None]:
    """Let one set-up run at a time; a second one waits for the first.

    The operating system drops the lock when its owner ends, however it ends,
    so a lock file that was left behind stops nobody. The file holds the
    owner's process number, for the message.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a+", encoding="utf-8") as file:
        waiting = False
        while not _try_lock(file):
            if not waiting:
                file.seek(0)
                owner = file.read().strip() or "unknown"
                _print(f"Process {owner} is setting up: waiting for it.")
            waiting = True
            time.sleep(0.5)
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield


def _try_lock(file: IO[str]) -> bool:
    try:
        if os.name == "nt":
            import msvcrt

            file.seek(1_000_000)  # a lock past the end leaves it readable
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def cure_for(log: str) -> str:
    """Return the sentence that fits the end of a set-up log."""
    text = log.lower()
    for signs, cure in CURES:
        if any(sign in text for sign in signs):
            return cure
    return "Read the lines above, mend what they name, and try again."


class Steps:
    """Runs the set-up's programs; says what goes on; keeps the log."""

    def __init__(self, venv: Path, *, python: str, repository: Path) -> None:
        self.venv = venv
        self.python = python
        self.repository = repository
        self.start = time.monotonic()
        self.log: IO[str] | None = None

    def say(self, text: str) -> None:
        """Print a line with the seconds since the start."""
        _print(f"[{time.monotonic() - self.start:4.0f} s] {text}")

    def make_venv(self) -> None:
        """Make an empty .venv, in the place of one that cannot run."""
        if self.venv.exists():
            shutil.rmtree(self.venv)
        self.venv.mkdir(parents=True)
        self._run([sys.executable, "-m", "venv", str(self.venv)])

    def pip_works(self) -> bool:
        """Can .venv's Python run pip?"""
        command = [self.python, "-m", "pip", "--version"]
        return subprocess.run(command, capture_output=True).returncode == 0

    def install(
        self,
        ordinary: list[str],
        unsloth: list[str],
        *,
        gpu: bool,
        again: bool,
    ) -> None:
        """Install the pins; without a GPU Unsloth comes alone (--no-deps).

        With `again` every package is written anew, for what an interrupted
        set-up left behind cannot be trusted. Raises StepFailed.
        """
        self._install_uv(again=again)
        if gpu and unsloth:
            count = len(ordinary) + len(unsloth)
            self.say(f"Installing {count} pinned packages, Unsloth for a GPU.")
            self._install_for_gpu(ordinary + unsloth, again=again)
            return
        self.say(f"Installing {len(ordinary)} pinned packages.")
        self._pip_install(ordinary, again=again)
        if unsloth:
            self.say("Installing Unsloth (no NVIDIA GPU: its CPU backend).")
            self._pip_install(["--no-deps", *unsloth], again=again)

    def install_course(self) -> None:
        """Install the course's own package, editable. Raises StepFailed."""
        self.say("Installing the course's own package, helpers.")
        options = ["--no-deps", "--no-build-isolation"]
        self._pip_install([*options, "-e", str(self.repository)])

    def _install_uv(self, *, again: bool) -> None:
        force = ["--force-reinstall"] if again else []
        # Without uv the same steps are run by pip: slower, same result.
        with contextlib.suppress(StepFailed):
            self._run([self.python, "-m", "pip", "install", *force, "uv"])

    def _install_for_gpu(self, lines: list[str], *, again: bool) -> None:
        # Unsloth asks for a certifi that some package indexes do not have
        # yet. certifi holds certificates: any recent one will do.
        override = self.venv / "override.txt"
        override.write_text("certifi\n", encoding="utf-8")
        try:
            self._run(self._uv(again=again) + lines)
        except StepFailed:
            lines = [*lines, "--override", str(override)]
            self._run(self._uv(again=again) + lines)

    def _pip_install(self, lines: list[str], *, again: bool = False) -> None:
        try:
            self._run(self._uv(again=again) + lines)
        except StepFailed:
            force = ["--force-reinstall"] if again else []
            pip = [self.python, "-m", "pip", "install"]
            self._run([*pip, *force, *_links(), *lines])

    def _uv(self, *, again: bool) -> list[str]:
        uv = [self.python, "-m", "uv", "pip", "install"]
        force = ["--reinstall"] if again else []
        options = ["--python", self.python, "--compile-bytecode"]
        return [*uv, *options, *force, *_links()]

    def _run(self, command: Sequence[str]) -> None:
        if self.log is None:
            path = self.venv / "setup.log"
            self.log = open(path, "w+", encoding="utf-8", errors="replace")
        self.log.write(f"\n$ {' '.join(command)}\n")
        self.log.flush()
        environment = {**os.environ, "PIP_USER": "0", "PIP_NO_INPUT": "1"}
        environment.pop("PYTHONPATH", None)
        try:
            child = subprocess.Popen(
                command,
                stdout=self.log,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                env=environment,
            )
        except OSError as error:
            raise StepFailed from error
        with child:
            status = self._wait(child)
        if status != 0:
            raise StepFailed

    def _wait(self, child: subprocess.Popen[bytes]) -> int:
        try:
            while True:
                try:
                    return child.wait(timeout=STILL_ALIVE)
                except subprocess.TimeoutExpired:
                    self.say("... still at it; the log is .venv/setup.log")
        except BaseException:
            child.terminate()
            raise

    def report(self) -> str:
        """Return the end of the log and the cure that fits it."""
        path = self.venv / "setup.log"
        log = path.read_text(encoding="utf-8", errors="replace")
        tail = "\n".join(log.splitlines()[-LOG_LINES:])
        return f"{tail}\n\nThe set-up failed. {cure_for(tail)}\nLog: {path}"

    def close(self) -> None:
        """Close the log."""
        if self.log is not None:
            self.log.close()


def _links() -> list[str]:
    folder = os.environ.get("PIP_FIND_LINKS", "")
    return ["--find-links", folder] if os.path.isdir(folder) else []


def _print(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
