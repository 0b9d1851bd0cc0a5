"""`python3 -m helpers run`: execute the notebooks and show what came out."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from helpers.commands import command_parser
from helpers.environment import REPOSITORY

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

    from helpers.execution import execute
    from helpers.notebook_files import clean_notebook, save_html, save_notebook

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
    from helpers.results import ResultFileError, table_text

    parts = []
    if outcomes[-1].error:
        parts.append(outcomes[-1].error)
    try:
        table = table_text(results)
    except ResultFileError as error:
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
