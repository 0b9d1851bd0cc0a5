"""The look of all figures: titles, files, colours."""

from pathlib import Path

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from helpers import plots
from helpers.plots import style
from helpers.rebuild.arms import ARM_NAMES, LOGIT_ARMS


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


def test_arms_of_a_figure_have_one_colour_each() -> None:
    colours = [style.colour_of(ARM_NAMES[arm]) for arm in LOGIT_ARMS]
    assert len(set(colours)) == len(LOGIT_ARMS)
    assert style.TEACHER not in colours
    wrong, right = style.colour_of("wrong"), style.colour_of("right")
    assert style.STUDENT not in (wrong, right) and wrong != right
