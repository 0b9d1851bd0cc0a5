"""`python3 -m helpers results`."""

from __future__ import annotations

import sys

from helpers.cli.commands import command_parser
from helpers.results import (
    ResultFileError,
    _repository,
    draw_overview,
    read_results,
    table_text,
    update_readme,
)


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
