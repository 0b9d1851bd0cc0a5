"""`python3 -m helpers run`: execute the notebooks and show what came out."""

from __future__ import annotations

import base64
import io
import os
import re
import sys
import time
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import suppress
from pathlib import Path

import nbformat
import psutil
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, DeadKernelError
from nbformat import NotebookNode
from PIL import Image
from tqdm import tqdm
from traitlets.config import Config

from helpers import CourseError
from helpers.cli.commands import command_parser
from helpers.cli.environment import REPOSITORY
from helpers.files.disk import write_atomic
from helpers.profiles import RUNS
from helpers.results import table_text

NOTEBOOKS = REPOSITORY / "notebooks"
COLOURS = re.compile(r"\x1b\[[0-9;]*m")
WIDGET = "application/vnd.jupyter.widget-view+json"
CELL_FILE = re.compile(r"[^\s\"'(]*ipykernel_\d+[/\\]+\d+\.py")
DIED = (
    "The kernel died. Most often the memory was full: close other programs, "
    "or use a smaller profile (--profile mini)."
)


def main(argv: list[str]) -> int:
    """Execute the notebooks in order; 1 if a cell fails."""
    parser = command_parser("run", "execute the notebooks, print the results")
    add = parser.add_argument
    which = "run only those whose name begins so, as 03; can be repeated"
    add("--notebook", action="append", default=[], metavar="NN", help=which)
    where = "refresh the outputs stored in notebooks/ too"
    add("--in-place", action="store_true", help=where)
    options = parser.parse_args(argv)
    results = RUNS / "results"
    os.environ["DISTILL_RESULTS_DIR"] = str(results)
    os.environ["JUPYTER_PREFER_ENV_PATH"] = "1"  # the kernel: this Python
    # glibc gives large tensors back at once, and asks for them anew: a tenth
    # of the time. The kernels keep what they have.
    os.environ.setdefault("MALLOC_MMAP_THRESHOLD_", str(2**30))
    os.environ.setdefault("MALLOC_TRIM_THRESHOLD_", str(2**31))
    error, times = "", []
    for path in find_notebooks(NOTEBOOKS, options.notebook):
        started = time.monotonic()
        error = run_notebook(path, in_place=options.in_place)
        seconds = f"{time.monotonic() - started:9.1f} s"
        times.append(f"{path.stem:<32}{seconds}{' (failed)' if error else ''}")
        if error:
            break
    print("", error, *times, sep="\n")
    print(f"\nExecuted copies: {RUNS / 'notebooks'}")
    print(f"\nMeasured results\n{table_text(results)}")
    return 1 if error else 0


def find_notebooks(folder: Path, prefixes: Sequence[str]) -> list[Path]:
    """The notebooks in reading order, those that match a prefix.

    Raises CourseError, with the names there are, for one that matches none.
    """
    paths = sorted(folder.glob("[0-9A]*.ipynb"))
    for prefix in prefixes or [""]:
        if not any(path.name.startswith(prefix) for path in paths):
            names = ", ".join(path.stem for path in paths)
            raise CourseError(
                f"No notebook in {folder} begins with {prefix!r}. There are: "
                f"{names or 'none'}."
            )
    return [p for p in paths if p.name.startswith(tuple(prefixes) or "")]


def run_notebook(path: Path, *, in_place: bool = False) -> str:
    """Execute one notebook in its folder; the report of a failure, or "".

    The executed copy goes to data/runs; with `in_place` a notebook that
    succeeds is replaced too. Raises OSError when a file cannot be written.
    """
    try:
        notebook = nbformat.read(path, as_version=4)
    except nbformat.reader.NotJSONError:
        cure = f"git checkout -- notebooks/{path.name}"
        return f"{path.name} is not a notebook. Bring it back: {cure}"
    error = execute(notebook, path)
    text = nbformat.writes(clean_notebook(notebook)).rstrip("\n") + "\n"
    write_atomic(RUNS / "notebooks" / path.name, text)
    if in_place and not error:
        write_atomic(path, text)
    return error


def execute(notebook: NotebookNode, path: Path) -> str:
    """Run every cell in place, in a fresh kernel; as `run_notebook`.

    When it is interrupted the kernel is stopped, and the exception goes on.
    """
    live = sys.stderr.isatty()
    bar = tqdm(
        total=len(notebook.cells),
        desc=path.stem,
        unit="cell",
        mininterval=0.2 if live else 20.0,  # in a log, a line now and then
    )
    client = NotebookClient(
        notebook,
        kernel_name="python3",
        timeout=None,
        resources={"metadata": {"path": str(path.parent)}},
        store_widget_state=False,
        record_timing=False,
        coalesce_streams=True,
        config=Config(KernelManager={"transport_encryption": "auto"}),
        on_cell_start=lambda cell_index, **_: bar.update(cell_index - bar.n),
    )
    warnings.filterwarnings("ignore", message="Proactor event loop")
    # In a thread of its own, where nbclient leaves Ctrl-C and SIGTERM to us.
    with bar, ThreadPoolExecutor(1) as pool:
        running = pool.submit(client.execute)
        try:
            while wait([running], timeout=0.25).not_done:
                pass  # Windows notices Ctrl-C between two waits
            running.result()
            bar.update(bar.total - bar.n)
            return ""
        except CellExecutionError as failed:
            error = str(failed)
        except DeadKernelError:
            error = f"{notebook.cells[bar.n].source}\n\n{DIED}"
        except BaseException:
            kill_children()
            raise
    error = f"{path.name}, cell {bar.n + 1} of {bar.total} failed:\n{error}"
    return error if live else COLOURS.sub("", error)


def kill_children() -> None:
    """Stop what this process has started, and what that has."""
    for child in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):
            child.kill()


def clean_notebook(
    notebook: NotebookNode,
    *,
    repository: Path = REPOSITORY,
    home: Path | None = None,
) -> NotebookNode:
    """A copy without what differs from run to run or names this machine.

    Widget states and widget views go (a widget's static picture stays); the
    course's folder becomes "." and the home folder "~".
    """
    lines = nbformat.writes(notebook).split("\n")
    text = "\n".join(  # a picture is one long line: not searched
        CELL_FILE.sub("<cell>", line) if "ipykernel_" in line else line
        for line in lines
    )
    for folder, short in ((repository, "."), (home or Path.home(), "~")):
        if folder == Path(folder.anchor):
            continue  # "/" is nobody's private folder
        # JSON doubles a Windows path's backslashes, a repr in it once more
        once = str(folder).replace("\\", "\\\\")
        for name in (once.replace("\\", "\\\\"), once, folder.as_posix()):
            start = r"(?:(?<![\w.~-])|(?<=\\[nt]))"  # not in a longer name
            pattern = rf"{start}{re.escape(name)}(?![\w-]|\.\w)"
            text = re.sub(pattern, short, text)
    notebook = nbformat.reads(text, as_version=4)
    notebook.metadata.pop("widgets", None)
    for cell in notebook.cells:
        outputs = cell.get("outputs", [])
        outputs[:] = [o for o in outputs if WIDGET not in o.get("data", {})]
        for output in outputs:
            if "image/png" in output.get("data", {}):
                output.data["image/png"] = small(output.data["image/png"])
    return notebook


def small(png: str) -> str:
    """The same picture with a palette: a third of the bytes.

    png: in base64, as it comes back. One that is transparent stays as it is.
    """
    with suppress(ValueError, OSError):  # no picture: left as it is
        picture = Image.open(io.BytesIO(base64.b64decode(png)))
        if picture.mode == "RGBA" and picture.getextrema()[3] == (255, 255):
            buffer = io.BytesIO()
            drawn = picture.convert("RGB").quantize(256, dither=0)
            drawn.save(buffer, "PNG", optimize=True)
            return base64.b64encode(buffer.getvalue()).decode()
    return png
