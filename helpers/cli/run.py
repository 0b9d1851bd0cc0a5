"""`python3 -m helpers run`: execute the notebooks and show what came out."""

from __future__ import annotations

import os
import re
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import nbformat
import psutil
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, DeadKernelError
from nbconvert import HTMLExporter
from nbformat import NotebookNode
from tqdm import tqdm
from traitlets.config import Config

from helpers import CourseError
from helpers.cli.commands import command_parser
from helpers.cli.environment import REPOSITORY
from helpers.profiles import RUNS, write_atomic

NOTEBOOKS = REPOSITORY / "notebooks"
PUBLISHED = REPOSITORY / "data" / "results"
MIB = 2**20
COLOURS = re.compile(r"\x1b\[[0-9;]*m")
WIDGET = "application/vnd.jupyter.widget-view+json"
CELL_FILE = re.compile(r"[^\s\"'(]*ipykernel_\d+[/\\]+\d+\.py")
DIED = (
    "The kernel died. Most often the memory was full: close other programs, "
    "or use a smaller profile (--profile mini)."
)


@dataclass
class Outcome:
    """What one notebook did: `error` is empty when every cell ran."""

    name: str
    seconds: float
    peak_mib: float
    error: str = ""


def main(argv: list[str]) -> int:
    """Execute the notebooks in order; 1 if a cell fails."""
    parser = command_parser(
        "run", "execute the notebooks in order, then print the results"
    )
    parser.add_argument(
        "--notebook",
        action="append",
        default=[],
        metavar="NN",
        help="run only those whose name begins so, as 03; can be repeated",
    )
    parser.add_argument(
        "--in-place",
        action="store_true",
        help="refresh the outputs stored in notebooks/ and data/results too",
    )
    options = parser.parse_args(argv)
    results = PUBLISHED if options.in_place else RUNS / "results"
    os.environ["DISTILL_PROFILE"] = options.profile
    os.environ["DISTILL_SEED"] = str(options.seed)
    os.environ["DISTILL_RESULTS_DIR"] = str(results)
    os.environ["JUPYTER_PREFER_ENV_PATH"] = "1"  # the kernel: this Python
    outcomes = []
    for path in find_notebooks(NOTEBOOKS, options.notebook):
        outcome = run_notebook(path, in_place=options.in_place)
        outcomes.append(outcome)
        if outcome.error:
            break
    print(summary(outcomes, results))
    return 1 if outcomes[-1].error else 0


def find_notebooks(folder: Path, prefixes: Sequence[str]) -> list[Path]:
    """The notebooks in reading order, those that match a prefix.

    Raises CourseError, with the names there are, for one that matches none.
    """
    paths = sorted(folder.glob("[0-9A]*.ipynb"))
    names = ", ".join(path.stem for path in paths)
    for prefix in prefixes:
        if not any(path.name.startswith(prefix) for path in paths):
            raise CourseError(
                f"No notebook begins with {prefix!r}. There are: {names}."
            )
    if not paths:
        raise CourseError(f"There are no notebooks in {folder}.")
    return [p for p in paths if p.name.startswith(tuple(prefixes) or "")]


def run_notebook(path: Path, *, in_place: bool = False) -> Outcome:
    """Execute one notebook in a fresh kernel, in the notebook's folder.

    The executed copy (.ipynb and .html) goes to data/runs; with `in_place` a
    notebook that succeeds is replaced too. Raises OSError with a cure when a
    file cannot be written.
    """
    try:
        notebook = nbformat.read(path, as_version=4)
    except nbformat.reader.NotJSONError:
        cure = f"git checkout -- notebooks/{path.name}"
        error = f"{path.name} is not a notebook. Bring it back: {cure}"
        return Outcome(path.name, 0.0, 0.0, error)
    start = time.monotonic()
    error, peak = execute(notebook, path)
    outcome = Outcome(path.name, time.monotonic() - start, peak / MIB, error)
    notebook = clean_notebook(notebook)
    page, _ = HTMLExporter().from_notebook_node(
        notebook, resources={"metadata": {"name": path.stem}}
    )
    write_atomic(RUNS / "notebooks" / f"{path.stem}.html", page)
    targets = [RUNS / "notebooks" / path.name]
    if in_place and not error:
        targets.append(path)
    for target in targets:
        write_atomic(target, nbformat.writes(notebook).rstrip("\n") + "\n")
    return outcome


def execute(notebook: NotebookNode, path: Path) -> tuple[str, float]:
    """Run every cell in place; (report of a failure or "", peak in bytes).

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
    peak, error = 0, ""
    # In a thread of its own, where nbclient leaves Ctrl-C and SIGTERM to us.
    with bar, ThreadPoolExecutor(1) as pool:
        running = pool.submit(client.execute)
        try:
            while wait([running], timeout=0.25).not_done:
                peak = max(peak, sum(map(memory, children())))
            running.result()
            bar.update(bar.total - bar.n)
        except CellExecutionError as failed:
            error = str(failed)
        except DeadKernelError:
            error = f"{notebook.cells[bar.n].source}\n\n{DIED}"
        except BaseException:
            for child in children():
                with suppress(psutil.Error):
                    child.kill()
            raise
    if error:
        error = (
            f"{path.name}, cell {bar.n + 1} of {bar.total} failed:\n{error}"
        )
    return error if live else COLOURS.sub("", error), peak


def children() -> list[psutil.Process]:
    """The kernel and all that it has started."""
    return psutil.Process().children(recursive=True)


def memory(process: psutil.Process) -> int:
    """The bytes that a process occupies, 0 of one that has ended."""
    try:
        return process.memory_info().rss
    except psutil.Error:
        return 0


def clean_notebook(
    notebook: NotebookNode,
    *,
    repository: Path = REPOSITORY,
    home: Path | None = None,
) -> NotebookNode:
    """A copy without what differs from run to run or names this machine.

    Timings, widget states and widget views go (a widget's static picture
    stays); the course's folder becomes "." and the home folder "~".
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
        cell.metadata.pop("execution", None)
        if "outputs" in cell:
            cell.outputs = [
                output
                for output in cell.outputs
                if WIDGET not in output.get("data", {})
            ]
    return notebook


def summary(outcomes: Sequence[Outcome], results: Path) -> str:
    """What is printed at the end of a run."""
    from helpers.results import table_text

    try:
        table = table_text(results)
    except CourseError as error:
        table = str(error)
    lines = [f"{'notebook':<32}{'seconds':>9}{'peak MiB':>10}"]
    for item in outcomes:
        name = Path(item.name).stem + (" (failed)" if item.error else "")
        lines.append(f"{name:<32}{item.seconds:>9.1f}{item.peak_mib:>10.0f}")
    seconds = sum(item.seconds for item in outcomes)
    peak = max(item.peak_mib for item in outcomes)
    lines.append(f"{'all':<32}{seconds:>9.1f}{peak:>10.0f}")
    copies = f"Executed copies (.ipynb and .html): {RUNS / 'notebooks'}"
    parts = [outcomes[-1].error, f"Measured results\n{table}"]
    return "\n" + "\n\n".join([*parts, "\n".join(lines), copies])
