"""Points that ship, and points trained on tiny models."""

from __future__ import annotations

from importlib import import_module

import pytest
import tiny
import torch

from helpers import CourseError
from helpers.models import PROJECTIONS
from helpers.results import Result, write_result
from helpers.widgets import sweeps as sweep
from helpers.widgets.sweeps import Point, Sweep, find_sweep
from helpers.widgets.training import lora_parameters


@pytest.fixture
def small(tmp_path, monkeypatch):
    """The tiny profile; a point trains on 8 traces and asks 3 problems."""
    data = tiny.traces(8), tiny.problems(3)
    monkeypatch.setattr(sweep, "point_data", lambda _: data)
    return tiny.profile(
        tmp_path,
        kd_student=str(tiny.folder("mini-qwen3-small")),
        kd_teacher=str(tiny.folder(tiny.TEACHER)),
    )


def result(arm: str, seed: int, correct: int, profile: str = "mini") -> Result:
    return Result(
        arm=arm,
        profile=profile,
        seed=seed,
        n=100,
        correct=correct,
        seconds=5.0,
        peak_memory_mb=None,
        command="python3 -m helpers sweep",
    )


@pytest.mark.parametrize("value", [1, 16, 0.5, 1.5])
def test_arm_name_comes_back_as_its_value(value, tmp_path, monkeypatch):
    monkeypatch.setattr(sweep, "RESULTS", tmp_path)
    chart = Sweep("rank", "LoRA rank", (value,), None)
    write_result(result(chart.arm(value), 7, 30), tmp_path / "rank")
    assert [point.x for point in chart.stored()] == [value]


def test_stored_points_add_seeds_and_are_in_order(tmp_path, monkeypatch):
    monkeypatch.setattr(sweep, "RESULTS", tmp_path)
    for arm, seed, correct in (
        ("rank_16", 7, 50),
        ("rank_2", 7, 10),
        ("rank_16", 8, 60),
    ):
        write_result(result(arm, seed, correct), tmp_path / "rank")
    assert find_sweep("rank").stored() == [
        Point(2, 10, 100, 5.0),
        Point(16, 110, 200, 10.0),
    ]


def test_stored_points_of_one_profile_only(tmp_path, monkeypatch):
    monkeypatch.setattr(sweep, "RESULTS", tmp_path)
    for profile, correct in (("mini", 50), ("laptop", 20)):
        made = result("rank_16", 7, correct, profile)
        write_result(made, tmp_path / "rank")
    rank = find_sweep("rank")
    assert rank.stored() == [Point(16, 50, 100, 5.0)]
    assert rank.stored("laptop") == [Point(16, 20, 100, 5.0)]
    assert rank.stored("full") == []


def test_stored_points_may_be_missing(tmp_path, monkeypatch):
    monkeypatch.setattr(sweep, "RESULTS", tmp_path)
    assert find_sweep("temperature").stored() == []


@pytest.mark.parametrize("name", sweep.SWEEPS)
def test_every_sweep_is_found_and_has_values(name):
    chosen = find_sweep(name)
    assert chosen.name == name
    assert list(chosen.values) == sorted(set(chosen.values))


def test_lora_parameters_counts_both_matrices():
    model = torch.nn.ModuleDict(
        {"q_proj": torch.nn.Linear(6, 4), "other": torch.nn.Linear(6, 4)}
    )
    assert lora_parameters(model, 3, PROJECTIONS) == 3 * (6 + 4)


def test_rank_point_trains_and_scores(small):
    seen = []
    made = find_sweep("rank").train(
        2, profile=small, progress=lambda done, total: seen.append(total)
    )
    point, evaluation = made
    assert (point.x, point.n) == (2, 3)
    assert point.correct == sum(evaluation.correct)
    assert len(seen) == seen[0]  # every step was reported


@pytest.mark.parametrize("name", ["temperature", "weight"])
def test_pair_point_trains_and_scores(small, name):
    point, _ = find_sweep(name).train(2.0, profile=small)
    assert (point.x, point.n) == (2.0, 3)


def test_stopped_point_is_none_and_stops_at_once(small):
    seen = []
    made = find_sweep("rank").train(
        2,
        profile=small,
        stop=lambda: len(seen) >= 1,
        progress=lambda done, _: seen.append(done),
    )
    assert made is None
    assert seen == [1]


@pytest.mark.parametrize("rank", [0, 1.5])
def test_rank_must_be_a_whole_number(small, rank):
    with pytest.raises(CourseError, match="whole number"):
        find_sweep("rank").train(rank, profile=small)


@pytest.mark.parametrize(
    "line",
    [
        "train --rank 0",
        "train --epochs 0",
        "train --limit 0",
        "train --limit -5",
        "distill --budget 0",
        "distill --epochs 0",
        "distill --top-k 0",
        "distill --kind banana",
    ],
)
def test_command_refuses_what_it_cannot_count(line, capsys):
    command, *argv = line.split()
    module = import_module(f"helpers.cli.{command}")
    with pytest.raises(SystemExit) as end:
        module.main(argv)
    assert end.value.code == 2
    assert argv[0] in capsys.readouterr().err
