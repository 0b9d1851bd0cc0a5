"""Widgets of the course: sliders that compute, and one that trains.

Pictures travel as PNG bytes in an Image widget, so they can be updated from
the thread that trains while the notebook stays responsive.
"""

from __future__ import annotations

import io
import threading
import time
from collections.abc import Sequence
from typing import Any

import ipywidgets
import matplotlib
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from helpers.models import PROJECTIONS
from helpers.plot_style import INK, REFERENCE, STUDENT, STYLE
from helpers.profiles import Profile
from helpers.statistics import wilson_interval
from helpers.sweep import (
    RankPoint,
    lora_parameters,
    stored_points,
    train_point,
)

RANKS = (1, 2, 4, 8, 16, 32)


def rank_chart_png(
    stored: Sequence[RankPoint], live: Sequence[RankPoint]
) -> bytes:
    """Accuracy against rank as PNG bytes, safe to draw in any thread.

    Grey: the points that ship with the course, all seeds together; orange:
    those trained in this session. Bars are 95% Wilson intervals.
    """
    with matplotlib.rc_context(STYLE):
        drawn = Figure(figsize=(7.6, 3.8), dpi=100, layout="constrained")
        axes = drawn.subplots()
        groups = (
            ("shipped", stored, REFERENCE, "o--"),
            ("trained here", live, STUDENT, "s"),
        )
        for label, points, colour, style in groups:
            if points:
                draw_points(axes, points, label, colour, style)
        axes.set_xscale("log", base=2)
        axes.set_xticks(RANKS, [str(rank) for rank in RANKS])
        axes.minorticks_off()
        axes.set(
            xlim=(0.8, 40),
            ylim=(0, 1),
            xlabel="LoRA rank (log scale)",
            ylabel="validation accuracy",
        )
        axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
        axes.legend(loc="lower right")
        buffer = io.BytesIO()
        drawn.savefig(buffer, format="png")
    return buffer.getvalue()


def draw_points(
    axes: Any,
    points: Sequence[RankPoint],
    label: str,
    colour: str,
    style: str,
) -> None:
    """One group of points with intervals; the latest live one wins."""
    by_rank = {point.rank: point for point in points}
    ranks = sorted(by_rank)
    shares = [by_rank[r].correct / by_rank[r].n for r in ranks]
    ends = [wilson_interval(by_rank[r].correct, by_rank[r].n) for r in ranks]
    low = [share - end[0] for share, end in zip(shares, ends, strict=True)]
    high = [end[1] - share for share, end in zip(shares, ends, strict=True)]
    total = sum(point.n for point in by_rank.values()) // len(by_rank)
    axes.errorbar(
        ranks,
        shares,
        yerr=[low, high],
        fmt=style,
        color=colour,
        ecolor=INK,
        elinewidth=1.2,
        capsize=4,
        ms=8,
        label=f"{label}, n = {total} a point",
    )


class RankExplorer:
    """A slider for the LoRA rank that re-trains the student at every stop.

    `show()` displays it. Moving the slider prints the trainable parameters
    at once and starts a short training in the background; its accuracy joins
    the chart when it is done. Stop ends the training at the next step.
    """

    def __init__(self, profile: Profile, model: Any) -> None:
        self.profile = profile
        self.counts = {
            rank: lora_parameters(model, rank, PROJECTIONS) for rank in RANKS
        }
        self.stored = stored_points()
        self.points: list[RankPoint] = []
        self.worker: threading.Thread | None = None
        self.stopping = threading.Event()
        self.slider = ipywidgets.SelectionSlider(
            options=RANKS,
            value=8,
            description="LoRA rank",
            continuous_update=False,
        )
        self.button = ipywidgets.Button(description="Stop", disabled=True)
        self.status = ipywidgets.HTML()
        self.picture = ipywidgets.Image(format="png", width=760)
        self.slider.observe(self.on_move, names="value")
        self.button.on_click(lambda _: self.stopping.set())
        self.describe("Move the slider to train: 15 to 40 seconds a point.")
        self.draw()

    def show(self) -> ipywidgets.VBox:
        """The widget, to be the last value of a cell."""
        controls = ipywidgets.HBox([self.slider, self.button])
        return ipywidgets.VBox([controls, self.status, self.picture])

    def describe(self, message: str) -> None:
        """Rank, trainable parameters and a message, in one line."""
        rank = self.slider.value
        self.status.value = (
            f"rank {rank}: <b>{self.counts[rank]:,}</b> trainable "
            f"parameters. {message}"
        )

    def draw(self) -> None:
        """Redraw accuracy against rank: stored points and live ones."""
        self.picture.value = rank_chart_png(self.stored, self.points)

    def on_move(self, change: dict[str, Any]) -> None:
        """Start a training at the new rank, ending one that still runs."""
        self.stopping.set()
        if self.worker is not None:
            self.worker.join()
        self.stopping.clear()
        self.worker = threading.Thread(
            target=self.train, args=(change["new"],), daemon=True
        )
        self.worker.start()

    def train(self, rank: int) -> None:
        """One point: train, score, add it to the chart."""
        self.button.disabled = False
        self.describe("Loading the student...")
        started = time.perf_counter()

        def on_step(done: int, total: int) -> None:
            seconds = time.perf_counter() - started
            self.describe(f"Step {done} of {total}, {seconds:.0f} s.")

        try:
            made = train_point(
                rank,
                profile=self.profile,
                stop=self.stopping.is_set,
                progress=on_step,
            )
            self.report(made)
        except Exception as error:  # shown where the learner looks
            self.describe(f"Training failed: {error}")
        finally:
            self.button.disabled = True

    def report(self, made: Any) -> None:
        """Add a finished point, or say that it was stopped."""
        if made is None:
            self.describe("Stopped; no point was added.")
            return
        point, evaluation = made
        self.points.append(point)
        self.describe(f"{evaluation.score}, {point.seconds:.0f} s.")
        self.draw()
