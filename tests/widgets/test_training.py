"""The slider that trains, with trainings made by hand."""

import threading
from typing import Any

import pytest
import tiny
import torch

from helpers.evaluate import Evaluation
from helpers.generate import Completion
from helpers.widgets.sweeps import Point, Sweep
from helpers.widgets.training import TrainingSlider, rank_explorer

MINI = tiny.PROFILES["mini"]
SECONDS = 20


def scored() -> Evaluation:
    """Three of ten problems answered rightly."""
    texts = ["4"] * 3 + ["5"] * 7
    answers = [Completion(text, 1, "stop") for text in texts]
    return Evaluation([{"answer": "4"}] * 10, answers, seconds=1.0)


def slider(
    train: Any, monkeypatch: pytest.MonkeyPatch, *stored: Point
) -> TrainingSlider:
    monkeypatch.setattr(Sweep, "stored", lambda *_: list(stored))
    monkeypatch.setattr(Sweep, "train", train)
    sweep = Sweep("rank", "LoRA rank", (1, 2, 4))
    return TrainingSlider(sweep, MINI, start=1, describe="rank {:g}:".format)


def settle(widget: TrainingSlider) -> None:
    widget.worker.join(SECONDS)
    assert not widget.worker.is_alive()


def test_moving_trains_the_chosen_value_and_redraws(monkeypatch):
    def train(sweep, value, *, progress, **_):
        assert not widget.button.disabled
        for step in (1, 2, 3):
            progress(step, 9)
        assert "to go" in widget.status.value
        return scored()

    widget = slider(train, monkeypatch)
    before = widget.picture.value
    widget.slider.value = 4
    settle(widget)
    assert widget.points == [Point(4, 3, 10)]
    assert widget.picture.value != before
    assert "rank 4: 30.0% (3/10)" in widget.status.value
    assert widget.button.disabled


def test_a_change_is_trained_with_and_drawn_apart(monkeypatch):
    asked = []

    def train(sweep, value, *, changes, **_):
        asked.append((value, changes))
        return scored()

    monkeypatch.setattr(Sweep, "stored", lambda *_: [])
    monkeypatch.setattr(Sweep, "train", train)
    widget = TrainingSlider(
        Sweep("rank", "LoRA rank", (1, 2, 4)),
        MINI,
        start=1,
        describe="rank {:g}:".format,
        changes={"epochs": (3, 1), "rate x": (1.0, 0.5)},
    )
    widget.changes["epochs"].value = 1
    settle(widget)
    widget.changes["epochs"].value = 3
    settle(widget)
    assert asked == [
        (1, {"epochs": 1, "rate x": 1.0}),
        (1, {"epochs": 3, "rate x": 1.0}),
    ]
    assert widget.others == widget.points == [Point(1, 3, 10)]


def test_stop_adds_no_point(monkeypatch):
    begun = threading.Event()

    def train(sweep, value, *, stop, **_):
        begun.set()
        while not stop():
            pass

    widget = slider(train, monkeypatch)
    before = widget.picture.value
    widget.slider.value = 2
    assert begun.wait(SECONDS)
    widget.button.click()
    settle(widget)
    assert widget.points == [] and widget.picture.value == before
    assert "Stopped" in widget.status.value


def test_failure_is_shown_as_text_and_the_slider_stays_usable(monkeypatch):
    def train(sweep, value, **_):
        if value == 2:
            raise ValueError("no <traces> there")
        return scored()

    widget = slider(train, monkeypatch)
    widget.slider.value = 2
    settle(widget)
    assert "failed: no &lt;traces&gt; there" in widget.status.value
    widget.slider.value = 4
    settle(widget)
    assert len(widget.points) == 1


def test_rank_explorer_counts_both_matrices_and_its_profiles_points():
    parts = {name: torch.nn.Linear(6, 4) for name in ("q_proj", "other")}
    widget = rank_explorer(MINI, torch.nn.ModuleDict(parts))
    assert "rank 8: <b>80</b>" in widget.status.value
    assert widget.stored
    assert (
        rank_explorer(tiny.PROFILES["laptop"], torch.nn.Module()).stored == []
    )
