"""`python3 -m helpers run`: execute the notebooks and show what came out."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat
import zmq
from jupyter_client import AsyncKernelManager
from jupyter_client.kernelspec import KernelSpecManager
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, DeadKernelError
from nbformat import NotebookNode
from tqdm import tqdm
from traitlets import default

from helpers import CourseError
from helpers.cli.commands import command_parser
from helpers.cli.environment import REPOSITORY
from helpers.profiles import write_atomic

COLOURS = re.compile(r"\x1b\[[0-9;]*m")
DIED = (
    "The kernel died. Most often the memory was full: close other programs, "
    "or use a smaller profile (--profile mini)."
)


class ThisPython(AsyncKernelManager):
    """Starts this Python, whatever kernels this machine has set up."""

    @default("kernel_spec_manager")
    def _native_kernel_only(self) -> KernelSpecManager:
        return KernelSpecManager(kernel_dirs=[], parent=self)

    @default("transport_encryption")
    def _encrypted_where_possible(self) -> str:
        return "auto" if zmq.has("curve") else "disabled"


class Client(NotebookClient):
    """A NotebookClient that Ctrl-C and SIGTERM end as any other program."""

    interrupted = False

    async def async_start_new_kernel(self, **options: object) -> None:
        # nbclient's own handlers, set just before, end in an AssertionError.
        loop = asyncio.get_running_loop()
        task = asyncio.current_task()

        def interrupt() -> None:
            self.interrupted = True
            self.shutdown_kernel = "immediate"
            task.cancel()

        with contextlib.suppress(NotImplementedError):  # on Windows
            loop.remove_signal_handler(signal.SIGTERM)
            loop.add_signal_handler(signal.SIGINT, interrupt)
        await super().async_start_new_kernel(**options)


def execute(
    notebook: NotebookNode,
    path: Path,
    *,
    environment: dict[str, str],
    bar_options: dict[str, object],
) -> str:
    """Run every cell in place, in the folder of `path`.

    Raises KeyboardInterrupt when it is interrupted, with the kernel stopped.
    Returns "" or, when a cell fails or the kernel dies, a report: the
    notebook, the number of the cell, its source and its error.
    """
    bar = tqdm(
        total=len(notebook.cells),
        unit="cell",
        position=1,
        leave=False,
        **bar_options,
    )
    current = [0]

    def on_cell_start(cell: NotebookNode, cell_index: int) -> None:
        current[0] = cell_index
        bar.update(cell_index - bar.n)

    client = Client(
        notebook,
        kernel_manager_class=ThisPython,
        kernel_name="python3",
        timeout=None,
        resources={"metadata": {"path": str(path.parent)}},
        store_widget_state=False,
        record_timing=False,
        coalesce_streams=True,
        on_cell_start=on_cell_start,
    )
    try:
        client.execute(env={**os.environ, **environment})
    except CellExecutionError as error:
        return _report(notebook, path, current[0], str(error))
    except (DeadKernelError, asyncio.CancelledError):
        if client.interrupted:
            raise KeyboardInterrupt from None
        return _report(notebook, path, current[0], DIED)
    finally:
        bar.close()
    return ""


def _report(notebook: NotebookNode, path: Path, index: int, error: str) -> str:
    cell = notebook.cells[index]
    for output in cell.outputs:
        if output.output_type == "error" and output.traceback:
            error = "\n".join(output.traceback)
    source = "".join(f"    {line}\n" for line in cell.source.split("\n"))
    count = len(notebook.cells)
    text = (
        f"{path.name}, cell {index + 1} of {count} failed:\n\n"
        f"{source}\n{error}"
    )
    return text if sys.stdout.isatty() else COLOURS.sub("", text)


WIDGET = "application/vnd.jupyter.widget-view+json"
CELL_FILE = re.compile(r"[^\s\"'(]*ipykernel_\d+[/\\]+\d+\.py")


def clean_paths(
    text: str, *, repository: Path, home: Path | None = None
) -> str:
    """Replace the course's folder by "." and the home folder by "~".

    Both kinds of slashes and the doubled backslashes of a Windows repr are
    found; a longer name that merely begins alike is left as it is.
    """
    text = CELL_FILE.sub("<cell>", text)
    for folder, short in ((repository, "."), (home or Path.home(), "~")):
        if folder == Path(folder.anchor):
            continue  # "/" is nobody's private folder
        spelled = (
            str(folder).replace("\\", "\\\\"),
            str(folder),
            folder.as_posix(),
        )
        for name in spelled:
            pattern = rf"(?<![\w.~-]){re.escape(name)}(?![\w-]|\.\w)"
            text = re.sub(pattern, short, text)
    return text


def clean_notebook(
    notebook: NotebookNode, *, repository: Path, home: Path | None = None
) -> None:
    """Drop, in place, what differs from run to run or names this machine.

    Timings, widget states and widget views go (a widget's static picture
    stays), and private folders are shortened in every text output.
    """
    notebook.metadata.pop("widgets", None)
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        if cell.cell_type != "code":
            continue
        cell.outputs = [
            output
            for output in cell.outputs
            if WIDGET not in output.get("data", {})
        ]
        for output in cell.outputs:
            for holder, key in _texts(output):
                holder[key] = _clean(
                    holder[key], repository=repository, home=home
                )


def save_notebook(notebook: NotebookNode, path: Path) -> None:
    """Write a notebook so that a kill leaves the old file or the new one.

    Raises OSError with a cure when it cannot be written.
    """
    text = nbformat.writes(notebook)
    write_atomic(path, text if text.endswith("\n") else text + "\n")


def save_html(notebook: NotebookNode, path: Path, *, title: str) -> None:
    """Write the page that a browser shows of an executed notebook.

    Raises OSError with a cure when it cannot be written.
    """
    from nbconvert import HTMLExporter

    resources = {"metadata": {"name": title}}
    page, _ = HTMLExporter().from_notebook_node(notebook, resources=resources)
    write_atomic(path, page)


def _texts(output: NotebookNode) -> Iterator[tuple[Any, str]]:
    """Yield (holder, key) of every text in an output."""
    for key in ("text", "traceback", "evalue"):
        if key in output:
            yield output, key
    data = output.get("data", {})
    for kind in data:
        if kind.startswith("text/") or kind == "image/svg+xml":
            yield data, kind


def _clean(value: Any, *, repository: Path, home: Path | None) -> Any:
    if isinstance(value, list):
        return [_clean(v, repository=repository, home=home) for v in value]
    return clean_paths(value, repository=repository, home=home)


NOTEBOOKS = REPOSITORY / "notebooks"
RUNS = REPOSITORY / "data" / "runs"
PUBLISHED = REPOSITORY / "data" / "results"
MIB = 2**20


@dataclass
class Outcome:
    """What one notebook did: `error` is empty when every cell ran."""

    name: str
    seconds: float
    peak_mib: float
    error: str = ""


def main(argv: list[str]) -> int:
    """Execute the notebooks in order; 1 if a cell fails, 2 if none match."""
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
    try:
        paths = find_notebooks(NOTEBOOKS, options.notebook)
    except FileNotFoundError as error:
        print(error, file=sys.stderr)
        return 2
    results = PUBLISHED if options.in_place else RUNS / "results"
    environment = {
        "DISTILL_PROFILE": options.profile,
        "DISTILL_SEED": str(options.seed),
        "DISTILL_RESULTS_DIR": str(results),
    }
    try:
        outcomes = run_all(
            paths,
            RUNS / "notebooks",
            environment=environment,
            in_place=options.in_place,
        )
    except OSError as error:
        print(error, file=sys.stderr)
        return 1
    print(_summary(outcomes, results))
    return 1 if outcomes[-1].error else 0


def find_notebooks(folder: Path, prefixes: Sequence[str]) -> list[Path]:
    """Return the notebooks in reading order, those that match a prefix.

    Raises FileNotFoundError, with the names there are, for a prefix that
    matches none, or when the folder holds no notebooks.
    """
    paths = sorted(folder.glob("[0-9A]*.ipynb"))
    if not paths:
        raise FileNotFoundError(f"There are no notebooks in {folder}.")
    for prefix in prefixes:
        if not any(path.name.startswith(prefix) for path in paths):
            names = ", ".join(path.stem for path in paths)
            raise FileNotFoundError(
                f"No notebook begins with {prefix!r}. There are: {names}."
            )
    wanted = tuple(prefixes) or ("",)
    return [path for path in paths if path.name.startswith(wanted)]


def run_all(
    paths: Sequence[Path],
    copies: Path,
    *,
    environment: dict[str, str],
    in_place: bool = False,
) -> list[Outcome]:
    """Execute `paths` in order and stop at the first that fails.

    Executed copies (.ipynb and .html) go to `copies`; with `in_place` each
    notebook that succeeds replaces its original too. Raises OSError with a
    cure when a file cannot be written.
    """
    from tqdm import tqdm

    outcomes: list[Outcome] = []
    bar = tqdm(paths, unit="notebook", position=0, **_bar_options())
    for path in bar:
        bar.set_description(path.stem)
        outcome = run_notebook(
            path, copies, environment=environment, in_place=in_place
        )
        outcomes.append(outcome)
        if outcome.error:
            break
    bar.close()
    return outcomes


def run_notebook(
    path: Path,
    copies: Path,
    *,
    environment: dict[str, str],
    in_place: bool = False,
) -> Outcome:
    """Execute one notebook in a fresh kernel, in the notebook's folder."""
    import nbformat

    from helpers.cli.run import (
        clean_notebook,
        execute,
        save_html,
        save_notebook,
    )

    try:
        notebook = nbformat.read(path, as_version=4)
    except nbformat.reader.NotJSONError:
        cure = f"git checkout -- notebooks/{path.name}"
        error = f"{path.name} is not a notebook. Bring it back: {cure}"
        return Outcome(path.name, 0.0, 0.0, error)
    start = time.monotonic()
    with peak_memory() as peak:
        error = execute(
            notebook,
            path,
            environment=environment,
            bar_options={**_bar_options(), "disable": not _is_live()},
        )
    outcome = Outcome(path.name, time.monotonic() - start, peak[0], error)
    clean_notebook(notebook, repository=REPOSITORY)
    save_notebook(notebook, copies / path.name)
    save_html(notebook, copies / f"{path.stem}.html", title=path.stem)
    if in_place and not error:
        save_notebook(notebook, path)
    return outcome


@contextmanager
def peak_memory() -> Iterator[list[float]]:
    """Measure the processes started meanwhile: [peak MiB of their sum]."""
    import psutil

    peak = [0.0]
    stop = threading.Event()

    def sample() -> None:
        while not stop.wait(0.25):
            total = 0
            for child in psutil.Process().children(recursive=True):
                try:
                    total += child.memory_info().rss
                except psutil.Error:
                    continue  # it ended between the two calls
            peak[0] = max(peak[0], total / MIB)

    thread = threading.Thread(target=sample, daemon=True)
    thread.start()
    try:
        yield peak
    finally:
        stop.set()
        thread.join()


def _summary(outcomes: Sequence[Outcome], results: Path) -> str:
    """What is printed at the end of a run."""
    from helpers.results import table_text

    parts = []
    if outcomes[-1].error:
        parts.append(outcomes[-1].error)
    try:
        table = table_text(results)
    except CourseError as error:
        table = str(error)
    parts.append(f"Measured results\n{table}")
    lines = [f"{'notebook':<32}{'seconds':>9}{'peak MiB':>10}"]
    for item in outcomes:
        name = Path(item.name).stem + (" (failed)" if item.error else "")
        lines.append(f"{name:<32}{item.seconds:>9.1f}{item.peak_mib:>10.0f}")
    seconds = sum(item.seconds for item in outcomes)
    peak = max(item.peak_mib for item in outcomes)
    lines.append(f"{'all':<32}{seconds:>9.1f}{peak:>10.0f}")
    parts.append("\n".join(lines))
    parts.append(f"Executed copies (.ipynb and .html): {RUNS / 'notebooks'}")
    return "\n" + "\n\n".join(parts)


def _bar_options() -> dict[str, object]:
    # A log file has no use for a bar that moves: a line now and then will do.
    return {"file": sys.stderr, "mininterval": 0.2 if _is_live() else 20.0}


def _is_live() -> bool:
    return sys.stderr.isatty()
