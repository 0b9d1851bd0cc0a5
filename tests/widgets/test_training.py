"""The slider that trains, with trainings made by hand."""

import threading
from typing import Any

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
    answers = [Completion(text, 1, "stop") for text in "4445555555"]
    return Evaluation([{"answer": "4"}] * 10, answers, seconds=1.0)


def slider(train: Any, monkeypatch: Any, **options: Any) -> TrainingSlider:
    """One without points, whose trainings are `train`."""
    monkeypatch.setattr(Sweep, "stored", lambda *_: [])
    monkeypatch.setattr(Sweep, "train", train)
    options |= {"start": 1, "describe": "rank {:g}:".format}
    return TrainingSlider(Sweep("rank", "Rank", (1, 2, 4)), MINI, **options)


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

    changes = {"epochs": (3, 1), "rate x": (1.0, 0.5)}
    widget = slider(train, monkeypatch, changes=changes)
    for epochs in (1, 3):
        widget.changes["epochs"].value = epochs
        settle(widget)
    usual = {"epochs": 3, "rate x": 1.0}
    assert asked == [(1, usual | {"epochs": 1}), (1, usual)]
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
    other = rank_explorer(tiny.PROFILES["laptop"], torch.nn.Module())
    assert other.stored == []
