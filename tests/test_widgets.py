"""The slider that trains, with trainings made by hand."""

from __future__ import annotations

import threading
from types import SimpleNamespace

import pytest
import tiny

from helpers.widgets.sweeps import Point, Sweep
from helpers.widgets.training import TrainingSlider, chart_png, rank_explorer

MINI = tiny.PROFILES["mini"]
SECONDS = 20


def made(value: float, correct: int = 3):
    return Point(value, correct, 10, 1.0), SimpleNamespace(score="30%")


def explorer(train, monkeypatch, stored=()) -> TrainingSlider:
    monkeypatch.setattr(Sweep, "stored", lambda *_: list(stored))
    chart = Sweep("rank", "LoRA rank", (1, 2, 4), train)
    return TrainingSlider(
        chart, MINI, start=1, describe=lambda x: f"rank {x:g}:"
    )


def settle(widget: TrainingSlider) -> None:
    widget.worker.join(SECONDS)
    assert not widget.worker.is_alive()


def test_moving_trains_the_chosen_value_and_redraws(monkeypatch):
    asked = []

    def train(value, **_):
        asked.append(value)
        return made(value)

    widget = explorer(train, monkeypatch)
    before = widget.picture.value
    widget.slider.value = 4
    settle(widget)
    assert asked == [4]
    assert widget.picture.value != before
    assert "rank 4: 30%" in widget.status.value
    assert widget.button.disabled


def test_stop_adds_no_point(monkeypatch):
    begun = threading.Event()

    def train(value, *, stop, **_):
        begun.set()
        while not stop():
            pass

    widget = explorer(train, monkeypatch)
    before = widget.picture.value
    widget.slider.value = 2
    assert begun.wait(SECONDS)
    assert not widget.button.disabled
    widget.button.click()
    settle(widget)
    assert widget.points == []
    assert widget.picture.value == before
    assert "Stopped" in widget.status.value


def test_moving_on_ends_the_training_before(monkeypatch):
    finished = []

    def train(value, *, stop, **_):
        while value == 2 and not stop():
            pass
        finished.append(value)
        return None if value == 2 else made(value)

    widget = explorer(train, monkeypatch)
    widget.slider.value = 2
    widget.slider.value = 4
    settle(widget)
    assert finished == [2, 4]
    assert [point.x for point in widget.points] == [4]


def test_failure_is_shown_and_the_slider_stays_usable(monkeypatch):
    def train(value, **_):
        if value == 2:
            raise ValueError("no traces there")
        return made(value)

    widget = explorer(train, monkeypatch)
    widget.slider.value = 2
    settle(widget)
    assert "Training failed: no traces there" in widget.status.value
    widget.slider.value = 4
    settle(widget)
    assert len(widget.points) == 1


def test_chart_is_a_png_that_shows_its_points():
    chart = Sweep("rank", "LoRA rank", (1, 2, 4), made)
    empty = chart_png(chart, [], [])
    stored = chart_png(chart, [Point(1, 5, 10, 1.0)], [])
    both = chart_png(chart, [Point(1, 5, 10, 1.0)], [Point(4, 9, 10, 1.0)])
    assert empty.startswith(b"\x89PNG")
    assert len({empty, stored, both}) == 3


def test_chart_leaves_out_values_the_slider_lacks():
    chart = Sweep("rank", "LoRA rank", (1, 2, 4), made)
    assert chart_png(chart, [Point(3, 5, 10, 1.0)], []) == chart_png(
        chart, [], []
    )


@pytest.mark.parametrize("rank", [1, 16])
def test_rank_explorer_counts_parameters(rank):
    widget = rank_explorer(MINI, tiny.plain_student().model)
    assert f"{widget.words(rank)}".startswith(f"rank {rank}: <b>")
    assert widget.show().children[0].children[0] is widget.slider


def test_rank_explorer_shows_the_points_of_its_own_profile():
    model = tiny.plain_student().model
    assert rank_explorer(MINI, model).stored
    assert rank_explorer(tiny.PROFILES["laptop"], model).stored == []
