"""Widgets of the course: sliders that train.

Pictures travel as PNG bytes in an Image widget, so they can be updated from
the thread that trains while the notebook stays responsive.
"""

from __future__ import annotations

import html
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import ipywidgets
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from helpers.evaluate import wilson_interval
from helpers.models import PROJECTIONS
from helpers.plots.style import INK, REFERENCE, STUDENT, to_png
from helpers.profiles import Profile
from helpers.widgets.sweeps import (
    Point,
    Sweep,
    find_sweep,
    step_callback,
    train_timed,
)

__all__ = [
    "TrainingSlider",
    "find_sweep",
    "rank_explorer",
    "step_callback",
    "train_timed",
]


def chart_png(
    sweep: Sweep, stored: Sequence[Point], live: Sequence[Point]
) -> bytes:
    """Accuracy against the setting as PNG bytes, safe to draw in any thread.

    Grey: the points that ship with the course, all seeds together (`mini`
    alone has some); orange: those trained in this session. Bars are 95%
    Wilson intervals.
    """
    places = {value: float(i) for i, value in enumerate(sweep.values)}

    def fill(drawn: Figure) -> None:
        axes = drawn.subplots()
        groups = (
            ("shipped", stored, REFERENCE, "o--"),
            ("trained here", live, STUDENT, "s"),
        )
        for label, points, colour, style in groups:
            known = [point for point in points if point.x in places]
            if known:
                draw_points(axes, known, places, label, colour, style)
        labels = [f"{value:g}" for value in sweep.values]
        axes.set_xticks(range(len(labels)), labels)
        axes.set(
            xlim=(-0.5, len(labels) - 0.5),
            ylim=(0, 1),
            xlabel=sweep.label,
            ylabel="validation accuracy",
        )
        axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
        if axes.get_legend_handles_labels()[0]:
            axes.legend(loc="best")

    return to_png(fill, size=(7.6, 3.8))


def draw_points(
    axes: Any,
    points: Sequence[Point],
    places: dict[float, float],
    label: str,
    colour: str,
    style: str,
) -> None:
    """One group of points with intervals; the latest of a setting wins."""
    latest = {point.x: point for point in points}
    chosen = [latest[x] for x in sorted(latest)]
    shares = [point.correct / point.n for point in chosen]
    ends = [wilson_interval(point.correct, point.n) for point in chosen]
    low = [share - end[0] for share, end in zip(shares, ends, strict=True)]
    high = [end[1] - share for share, end in zip(shares, ends, strict=True)]
    sizes = sorted({point.n for point in chosen})
    axes.errorbar(
        [places[point.x] for point in chosen],
        shares,
        yerr=[low, high],
        fmt=style,
        color=colour,
        ecolor=INK,
        elinewidth=1.2,
        capsize=4,
        ms=8,
        label=f"{label}, n = {' or '.join(map(str, sizes))} a point",
    )


class TrainingSlider:
    """A slider that re-trains the student at every stop.

    `show()` displays it. Moving the slider starts a short training in the
    background; its accuracy joins the chart when it is done. *Stop* ends the
    training at the next step, and so does moving on. describe: one setting
    in words (HTML), shown at once.
    """

    def __init__(
        self,
        sweep: Sweep,
        profile: Profile,
        *,
        start: float,
        describe: Callable[[float], str],
    ) -> None:
        self.sweep, self.profile = sweep, profile
        self.words = describe
        self.stored = sweep.stored(profile.name)
        self.points: list[Point] = []
        self.worker: threading.Thread | None = None
        self.stopping = threading.Event()
        self.slider = ipywidgets.SelectionSlider(
            options=[(f"{value:g}", value) for value in sweep.values],
            value=start,
            description=sweep.label,
            continuous_update=False,
            style={"description_width": "initial"},
        )
        self.button = ipywidgets.Button(description="Stop", disabled=True)
        self.status = ipywidgets.HTML()
        self.picture = ipywidgets.Image(format="png", width=760)
        self.slider.observe(self.on_move, names="value")
        self.button.on_click(lambda _: self.stopping.set())
        self.report("Move the slider to train a point.")
        self.draw()

    def show(self) -> ipywidgets.VBox:
        """The widget, to be the last value of a cell."""
        controls = ipywidgets.HBox([self.slider, self.button])
        return ipywidgets.VBox([controls, self.status, self.picture])

    def report(self, message: str) -> None:
        """The setting in words and a message, in one line."""
        self.status.value = f"{self.words(self.slider.value)} {message}"

    def draw(self) -> None:
        """Redraw the chart: stored points and live ones."""
        self.picture.value = chart_png(self.sweep, self.stored, self.points)

    def on_move(self, change: dict[str, Any]) -> None:
        """Start a training at the new value, ending one that still runs."""
        self.stopping.set()
        if self.worker is not None:
            self.worker.join()
        self.stopping.clear()
        self.worker = threading.Thread(
            target=self.train, args=(change["new"],), daemon=True
        )
        self.worker.start()

    def train(self, value: float) -> None:
        """One point: train, score, add it to the chart."""
        self.button.disabled = False
        self.report("Loading the student...")
        started = time.perf_counter()

        def on_step(done: int, total: int) -> None:
            seconds = time.perf_counter() - started
            self.report(f"Step {done} of {total}, {seconds:.0f} s.")

        try:
            made = self.sweep.train(
                value,
                profile=self.profile,
                stop=self.stopping.is_set,
                progress=on_step,
            )
            self.finish(made)
        except Exception as error:  # shown where the learner looks
            self.report(f"Training failed: {html.escape(str(error))}")
        finally:
            self.button.disabled = True

    def finish(self, made: Any) -> None:
        """Add a finished point, or say that it was stopped."""
        if made is None:
            self.report("Stopped; no point was added.")
            return
        point, evaluation = made
        self.points.append(point)
        self.report(f"{evaluation.score}, {point.seconds:.0f} s.")
        self.draw()


def lora_parameters(model: Any, rank: int, targets: tuple[str, ...]) -> int:
    """Parameters that adapters of `rank` would add: rank * (in + out) each.

    Source: LoRA (arXiv:2106.09685), section 4.1.
    """
    total = 0
    for name, module in model.named_modules():
        if name.rsplit(".", 1)[-1] in targets:
            total += rank * (module.in_features + module.out_features)
    return total


def rank_explorer(profile: Profile, model: Any) -> TrainingSlider:
    """The LoRA rank slider of notebook 03; `model` is the plain student."""

    def describe(rank: float) -> str:
        count = lora_parameters(model, int(rank), PROJECTIONS)
        return f"rank {rank:g}: <b>{count:,}</b> trainable parameters."

    return TrainingSlider(
        find_sweep("rank"), profile, start=8, describe=describe
    )
