"""Tables of the measured results, generated from data/results, never typed.

The files themselves are read and written by helpers.result_files; its names
are offered here as well, so `from helpers.results import ...` is enough.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from helpers.commands import command_parser
from helpers.result_files import (
    RERUN,
    Result,
    ResultFileError,
    package_versions,
    read_results,
    replace_file,
    results_directory,
    write_result,
)
from helpers.statistics import gap_closed, wilson_interval

__all__ = [
    "Result",
    "ResultFileError",
    "main",
    "package_versions",
    "read_results",
    "results_directory",
    "table_markdown",
    "table_text",
    "update_readme",
    "write_result",
]

START, END = "<!-- results:start -->", "<!-- results:end -->"
KD_START, KD_END = "<!-- kd:start -->", "<!-- kd:end -->"
NO_RESULTS = f"No results yet. Measure them: {RERUN}"
HEADER = ("n", "accuracy", "95% CI", "seconds", "peak MiB", "command")
NUMERIC = {"seed", "n", "accuracy", "95% CI", "seconds", "peak MiB"}
Table = list[list[str]]


def table_text(
    directory: Path | None = None, *, results: Sequence[Result] | None = None
) -> str:
    """The results as aligned plain text, for the terminal.

    One row an arm, and one an extra split ("student_after: heldout").
    Columns for profile and seed appear when there is more than one of them.
    results: these instead of the files of `directory`.

    Raises:
        ResultFileError: a result file is broken.
    """
    table = _table(read_results(directory) if results is None else results)
    if not table:
        return NO_RESULTS
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    table.insert(1, ["-" * width for width in widths])
    lines = [
        "  ".join(
            cell.rjust(width) if name in NUMERIC else cell.ljust(width)
            for name, cell, width in zip(table[0], row, widths, strict=True)
        ).rstrip()
        for row in table
    ]
    return "\n".join(lines)


def table_markdown(
    directory: Path | None = None, *, results: Sequence[Result] | None = None
) -> str:
    """The same table in Markdown, for the README and the notebooks.

    Raises:
        ResultFileError: a result file is broken.
    """
    table = _table(read_results(directory) if results is None else results)
    if not table:
        return NO_RESULTS
    header = table[0]
    rule = ["---:" if name in NUMERIC else "---" for name in header]
    body = [
        [*row[:-1], f"`{row[-1]}`" if row[-1] else ""] for row in table[1:]
    ]
    return "\n".join(f"| {' | '.join(row)} |" for row in [header, rule, *body])


def update_readme(path: Path, directory: Path | None = None) -> bool:
    """Write the table between the two result markers of a file.

    Returns whether the file changed; what is outside the markers never does.
    A file with the `kd` markers gets the table of notebooks 05 and 06 there.

    Raises:
        ResultFileError: no such file, no markers in it, it cannot be
            written, or a result file is broken.
    """
    path = Path(path)
    if not path.is_file():
        raise ResultFileError(f"There is no file {path} to put the table in.")
    old = path.read_text("utf-8")
    new = put_between(old, START, END, table_markdown(directory), path.name)
    if KD_START in new:
        from helpers.kd_results import (
            ARM_NAMES,
            kd_table_markdown,
            read_groups,
        )

        folder = Path(directory or results_directory()) / "kd"
        groups = read_groups(folder, arms=tuple(ARM_NAMES))
        table = kd_table_markdown(groups)
        new = put_between(new, KD_START, KD_END, table, path.name)
    if new != old:
        replace_file(path, new)
    return new != old


def put_between(text: str, start: str, end: str, table: str, name: str) -> str:
    """`text` with a table between two markers; nothing else changes."""
    before, found, rest = text.partition(start)
    _, closed, after = rest.partition(end)
    if not found or not closed:
        raise ResultFileError(
            f"{name} has no place for the results: put the lines "
            f"{start} and {end} where the table belongs."
        )
    return f"{before}{start}\n\n{table}\n\n{end}{after}"


def draw_overview(directory: Path | None = None) -> Path | None:
    """Draw the README's picture: teacher, student before and after.

    Returns the file beside the results, None while one of them is missing.
    """
    folder = Path(directory or results_directory())
    found = {
        result.arm: result
        for result in read_results(folder)
        if result.profile == "mini"
    }
    arms = ("teacher", "student_before", "student_after")
    if not all(arm in found for arm in arms):
        return None
    from helpers.plots import accuracy_bars

    teacher, before, after = (found[arm].accuracy for arm in arms)
    closed = gap_closed(before, after, teacher)
    path = folder / "overview.png"
    accuracy_bars(
        [found[arm] for arm in arms],
        f"Distillation closes {closed:.0%} of the gap to the teacher",
        save=path,
    )
    return path


def main(argv: list[str] | None = None) -> int:
    """`python3 -m helpers results`: print the table, or write the README."""
    parser = command_parser("results", "print the table of measured results")
    parser.add_argument(
        "--readme",
        action="store_true",
        help="write the table of all results, and its picture, into README.md",
    )
    parser.set_defaults(profile=None, seed=None)  # unasked: show everything
    options = parser.parse_args(argv)
    try:
        shown = [
            result
            for result in read_results()
            if options.profile in (None, result.profile)
            and options.seed in (None, result.seed)
        ]
        print(table_text(results=shown))
        if options.readme:
            draw_overview()
            changed = update_readme(_repository() / "README.md")
            print("README.md", "updated." if changed else "was up to date.")
    except ResultFileError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def _repository() -> Path:
    return Path(__file__).resolve().parents[1]


def _table(results: Sequence[Result]) -> Table:
    """Header and rows as text; [] when there are no results."""
    if not results:
        return []
    keys = [
        name
        for name in ("profile", "seed")
        if len({getattr(result, name) for result in results}) > 1
    ]
    rows = [["arm", *keys, *HEADER]]
    for result in results:
        rows += _rows(result, [str(getattr(result, key)) for key in keys])
    return rows


def _rows(result: Result, keys: list[str]) -> Table:
    """The arm's own row, then one row for each of its splits."""
    mode = f" ({result.mode})" if result.mode else ""
    memory = result.peak_memory_mb
    costs = [
        f"{result.seconds:.0f}",
        "-" if memory is None else f"{memory:.0f}",
        result.command,
    ]
    score = _score(result.n, result.correct)
    rows = [[f"{result.arm}{mode}", *keys, *score, *costs]]
    for name, split in result.splits.items():
        score = _score(split["n"], split["correct"])
        rows.append([f"{result.arm}: {name}", *keys, *score, "", "", ""])
    return rows


def _score(total: int, correct: int) -> list[str]:
    low, high = wilson_interval(correct, total)
    interval = f"{100 * low:.1f}-{100 * high:.1f}"
    return [str(total), f"{correct / total:.1%}", interval]
