"""The look of all figures: titles, files, colours."""

from __future__ import annotations

from pathlib import Path

import matplotlib.pyplot as plt
import pytest
from matplotlib.figure import Figure

from helpers import plots
from helpers.plots import style
from helpers.rebuild.arms import ARM_NAMES


def test_figure_wraps_its_title_and_is_saved(
    shown: list[Figure], tmp_path: Path
) -> None:
    path = tmp_path / "figure.png"
    before = dict(plt.rcParams)
    with plots.figure("word " * 40, xlabel="x (s)", ylabel="y", save=path):
        pass
    assert dict(plt.rcParams) == before  # the style is the figure's alone
    lines = shown[0].get_suptitle().splitlines()
    assert len(lines) > 1 and max(map(len, lines)) <= 64
    assert shown[0].axes[0].get_xlabel() == "x (s)"
    assert path.read_bytes().startswith(b"\x89PNG")


def test_figure_error_inside_shows_nothing(shown: list[Figure]) -> None:
    with pytest.raises(RuntimeError):
        with plots.figure("t", xlabel="x", ylabel="y"):
            raise RuntimeError("stop")
    assert shown == []


def test_figure_in_given_axes_shows_nothing_itself(
    shown: list[Figure],
) -> None:
    with plots.canvas("two", columns=2) as panels:
        for ax in panels:
            with plots.figure("t", xlabel="x", ylabel="y", ax=ax) as axes:
                assert axes is ax
        assert shown == []
    assert len(shown) == 1 and shown[0].axes == panels


def test_to_png_draws_without_pyplot() -> None:
    png = style.to_png(lambda drawn: drawn.subplots().plot([1, 2]))
    assert png.startswith(b"\x89PNG") and plt.get_fignums() == []


def test_colour_of_keeps_the_roles() -> None:
    assert style.colour_of("mini teacher") == style.TEACHER
    for name in ("student after", "student_after (think)", "teacher text"):
        assert style.colour_of(name) == style.STUDENT, name
    assert style.colour_of("student_before") == style.REFERENCE


def test_arms_have_one_colour_each_by_either_name() -> None:
    colours = [style.colour_of(arm) for arm in ARM_NAMES]
    assert len(set(colours)) == len(ARM_NAMES)
    assert style.TEACHER not in colours
    for arm, name in ARM_NAMES.items():
        assert style.colour_of(name) == style.colour_of(arm), name
    wrong, right = style.colour_of("wrong"), style.colour_of("right")
    assert style.STUDENT not in (wrong, right) and wrong != right
