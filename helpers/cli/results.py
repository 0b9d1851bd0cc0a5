"""`python3 -m helpers results`: print the table, or write the README."""

from __future__ import annotations

import os
from pathlib import Path

from helpers import CourseError
from helpers.cli.commands import command_parser
from helpers.evaluate import gap_closed
from helpers.files.disk import write_atomic
from helpers.profiles import ROOT
from helpers.rebuild.arms import (
    budgets_markdown,
    kd_contrasts,
    panels,
    read_groups,
)
from helpers.rebuild.half_results import (
    find,
    halves_markdown,
    overview,
    path_of,
    read_halves,
)
from helpers.results import (
    read_results,
    results_directory,
    table_markdown,
    table_text,
)

README = ROOT / "README.md"
OVERVIEW = ("teacher", "student_before", "student_after")


def main(argv: list[str]) -> int:
    """`python3 -m helpers results`."""
    parser = command_parser("results", __doc__)
    what = "write the table of all results, and its picture, into README.md"
    parser.add_argument("--readme", action="store_true", help=what)
    parser.set_defaults(profile=None, seed=None)  # unasked: show everything
    options = parser.parse_args(argv)
    shown = [
        result
        for result in read_results()
        if options.profile in (None, result.profile)
        and options.seed in (None, result.seed)
    ]
    print(table_text(shown))
    if options.readme:
        os.environ["MPLBACKEND"] = "Agg"  # pictures, no windows
        update_readme(README)
        draw_overview()
        draw_forest()
        draw_half()
        print("README.md has this table.")
    return 0


def update_readme(path: Path) -> None:
    """Write the tables between their markers.

    What is outside the markers never changes, nor does a table for which
    there are no results. Raises CourseError when there are none at all.
    """
    if not read_results():
        raise CourseError(
            f"{results_directory()} holds no results: {path.name} stays as it "
            "is. Unset DISTILL_RESULTS_DIR, or measure: "
            "`python3 -m helpers evaluate --arm teacher --write`"
        )
    text = path.read_text("utf-8")
    text = put_between(text, "results", table_markdown())
    groups = read_groups(results_directory() / "kd")
    if groups:
        text = put_between(text, "kd", budgets_markdown(groups))
    halves = read_halves(results_directory() / "half_gemma")
    if halves:
        text = put_between(text, "half", halves_markdown(overview(halves)))
    write_atomic(path, text)


def put_between(text: str, name: str, table: str) -> str:
    """`text` with a table between the two markers of that name."""
    start, end = f"<!-- {name}:start -->", f"<!-- {name}:end -->"
    if text.count(start) != 1 or text.count(end) != 1:
        raise CourseError(f"put the lines {start} and {end} into the README.")
    before, after = text.split(start)[0], text.split(end)[1]
    return f"{before}{start}\n\n{table}\n\n{end}{after}"


def draw_overview() -> None:
    """The README's picture, beside the results, if all of it is measured."""
    from helpers.plots.accuracy import accuracy_bars

    arms = {r.arm: r for r in read_results() if r.profile == "mini"}
    if set(OVERVIEW) <= set(arms):
        bars = [arms[arm] for arm in OVERVIEW]
        teacher, before, after = (result.accuracy for result in bars)
        closed = gap_closed(before, after, teacher)
        title = f"Distillation closes {closed:.0%} of the gap to the teacher"
        picture = results_directory() / "overview.png"
        accuracy_bars(bars, title, save=picture)


def draw_forest() -> None:
    """The README's picture of the primary contrasts, where they are made."""
    from helpers.plots.comparison import forest

    folder = results_directory() / "kd"
    if contrasts := kd_contrasts(read_groups(folder)):
        sure = sum(contrast.sure for contrast in contrasts)
        title = f"{sure} of {len(contrasts)} planned gains are told from 0"
        forest(panels(contrasts), title, xlabel="gain (points)",
               save=folder / "overview.png")  # fmt: skip


def draw_half() -> None:
    """The README's picture of the repaired halves, beside their results."""
    from helpers.plots.lines import line_chart

    folder = results_directory() / "half_gemma"
    halves = read_halves(folder)
    names = ("text", "logits", "logits_states")
    lessons = [h for n in names if (h := find(halves, n, 320))]
    lessons = lessons or [h for n in names if (h := find(halves, n, 32))]
    if lessons:
        line_chart(
            {half.name: path_of(half, "kl") for half in lessons},
            "Half of Gemma 3 270M, repaired: how far from the whole?",
            xlabel="tokens read",
            ylabel="KL from the teacher (nats, log scale)",
            save=folder / "overview.png",
        )
