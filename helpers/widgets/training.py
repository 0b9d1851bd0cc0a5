"""The slider that trains, of notebooks 03 and 05 to 07."""

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from html import escape
from typing import Any

import ipywidgets
import torch
from matplotlib.figure import Figure

import helpers.plots.style as style
from helpers.models import PROJECTIONS
from helpers.plots.accuracy import intervals
from helpers.profiles import Profile
from helpers.widgets.explorer import Explorer
from helpers.widgets.sweeps import (  # noqa: F401
    CHANGES,
    SWEEPS,
    Point,
    Sweep,
    find_sweep,
    step_callback,
    train_timed,
)


class TrainingSlider(Explorer):
    """A slider that trains a fresh student at every stop.

    Moving it starts a short training in the background, which says how long
    it will take; its accuracy joins the chart when it is done. *Stop* ends
    the training at the next step, and so does moving on.
    describe: one setting in words (HTML), shown at once.

    The chart's grey points are stored ones, all seeds together (`mini` ships
    with some), the orange ones were trained here, the teal ones with other
    `changes` than the first of each; bars are 95% Wilson intervals.
    """

    def __init__(
        self,
        sweep: Sweep,
        profile: Profile,
        *,
        start: float,
        describe: Callable[[float], str],
        changes: Mapping[str, Sequence[float]] | None = None,
    ) -> None:
        super().__init__(size=(7.6, 3.8))
        self.sweep, self.profile, self.describe = sweep, profile, describe
        self.stored = sweep.stored(profile.name)
        self.points: list[Point] = []
        self.others: list[Point] = []  # with changes
        self.worker: threading.Thread | None = None
        self.stopping = threading.Event()

        def choice(label: str, values: Sequence[float], start: float) -> Any:
            return ipywidgets.SelectionSlider(
                options=[(f"{value:g}", value) for value in values],
                value=start,
                description=label,
                continuous_update=False,
                style={"description_width": "initial"},
            )

        self.slider = choice(sweep.label, sweep.values, start)
        self.changes = {
            name: choice(name, sorted(values), values[0])
            for name, values in (changes or {}).items()
        }
        self.own = {name: one.value for name, one in self.changes.items()}
        self.button = ipywidgets.Button(description="Stop", disabled=True)
        self.controls = (self.slider, *self.changes.values(), self.button)
        for slider in (self.slider, *self.changes.values()):
            slider.observe(self.on_move, names="value")
        self.button.on_click(lambda _: self.stopping.set())
        self.message = "Move the slider to train; step 2 says how long."
        self.draw()

    def words(self) -> str:
        """The setting in words and how its training goes, in one line."""
        return f"{self.describe(self.slider.value)} {escape(self.message)}"

    def report(self, message: str) -> None:
        """Say how the training goes, in plain text."""
        self.message = message
        self.status.value = self.words()

    def on_move(self, _: dict[str, Any]) -> None:
        """Start a training at the new values, ending one that still runs."""
        self.stopping.set()
        self.stopping = threading.Event()
        given = self.slider.value, self.stopping, self.worker
        self.worker = threading.Thread(
            target=self.train, args=given, daemon=True
        )
        self.worker.start()

    def train(
        self,
        value: float,
        stopping: threading.Event,
        before: threading.Thread | None,
    ) -> None:
        """One point: train, score, add it to the chart.

        On a GPU in a stream of its own: Unsloth unpacks 4-bit weights into
        one buffer, which two threads on one stream would share.
        """
        if before is not None:
            before.join()
        self.button.disabled = False
        self.report("Loading the student...")
        started = time.perf_counter()
        changes = {name: one.value for name, one in self.changes.items()}
        points = self.points if changes == self.own else self.others
        try:
            gpu = torch.cuda.is_available()
            stream = torch.cuda.Stream() if gpu else None
            with torch.cuda.stream(stream):  # None: does nothing
                evaluation = self.sweep.train(
                    value,
                    profile=self.profile,
                    changes=changes,
                    stop=stopping.is_set,
                    progress=self.on_step,
                )
            if evaluation is None:
                self.report("Stopped; no point was added.")
                return
            right = evaluation.correct
            points.append(Point(value, sum(right), len(right)))
            seconds = time.perf_counter() - started
            self.message = f"{evaluation.score}, {seconds:.0f} s."
            self.draw()
        except Exception as error:  # shown where the learner looks
            self.report(f"Training failed: {error}")
        finally:
            self.button.disabled = True

    def on_step(self, done: int, total: int) -> None:
        """Report a step, and from the second on the time that is left."""
        now = time.perf_counter()
        if done == 1:
            self.first_step = now
            self.report(f"Step 1 of {total}.")
        else:
            left = (now - self.first_step) / (done - 1) * (total - done)
            self.report(f"Step {done} of {total}, about {left:.0f} s to go.")

    def paint(self, drawn: Figure) -> None:
        """Accuracy at every setting; the latest point of a setting wins."""
        values = self.sweep.values
        labels = {"xlabel": self.sweep.label, "ylabel": "validation accuracy"}
        with style.figure("", **labels, ax=drawn.subplots()) as axes:
            for name, points, colour, line in (
                ("stored", self.stored, style.REFERENCE, "o--"),
                ("trained here", self.points, style.STUDENT, "s"),
                ("with your changes", self.others, style.ACCENT, "D"),
            ):
                latest = {p.x: p for p in points if p.x in values}
                counts = [(p.correct, p.n) for p in latest.values()]
                if not counts:
                    continue
                shares, reach = intervals(counts)
                sizes = " or ".join(sorted({str(n) for _, n in counts}))
                axes.errorbar(
                    [values.index(x) for x in latest], shares, yerr=reach,
                    fmt=line, color=colour, ecolor=style.INK, elinewidth=1.2,
                    capsize=4, ms=8, label=f"{name}, n = {sizes} a point",
                )  # fmt: skip
                axes.legend(loc="best")
            axes.set_xticks(range(len(values)), [f"{x:g}" for x in values])
            axes.set_xlim(-0.5, len(values) - 0.5)
            style.share_axis(axes, top=1)


def rank_explorer(profile: Profile, model: Any) -> TrainingSlider:
    """The LoRA rank slider of notebook 03; `model` is the plain student.

    Adapters add rank * (in + out) parameters to a matrix (LoRA,
    arXiv:2106.09685, section 4.1).
    """
    ends = sum(
        module.in_features + module.out_features
        for name, module in model.named_modules()
        if name.rsplit(".", 1)[-1] in PROJECTIONS
    )

    def describe(rank: float) -> str:
        return f"rank {rank:g}: <b>{rank * ends:,}</b> trainable parameters."

    return TrainingSlider(
        SWEEPS["rank"], profile, start=8, describe=describe, changes=CHANGES
    )
