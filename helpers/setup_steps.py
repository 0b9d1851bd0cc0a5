"""The steps that fill .venv: uv first, pip where uv cannot; one log file."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO

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
