"""Points that ship, and points trained on tiny models."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import tiny
import torch

from helpers.cli.students import sweep as main
from helpers.profiles import Profile
from helpers.results import write_result
from helpers.widgets import sweeps
from helpers.widgets.sweeps import Point, find_sweep


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Profile:
    """The tiny profile; a point trains on 8 traces and asks 3 problems."""
    monkeypatch.setattr(sweeps, "ASKED", 3)
    monkeypatch.setattr(sweeps, "load_traces", lambda _: tiny.traces(8))
    return tiny.profile(tmp_path)


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Shipped results and runs below a temporary folder."""
    monkeypatch.setattr(sweeps, "SHIPPED", tmp_path / "shipped")
    monkeypatch.setattr(sweeps, "RUNS", tmp_path / "runs")
    return tmp_path


def store(value: float, seed: int, correct: int, profile: str) -> None:
    sweep = find_sweep("rank")
    counts = {"n": 100, "correct": correct}
    arm = sweep.arm(value)
    result = tiny.result(arm, profile=profile, seed=seed, **counts)
    write_result(result, sweep.folder(profile))


def test_stored_points_are_one_profiles_with_seeds_added(folders):
    store(16, 7, 50, "mini")
    store(0.5, 7, 10, "mini")
    store(16, 8, 60, "mini")
    store(16, 7, 20, "laptop")
    rank = find_sweep("rank")
    assert rank.stored() == [Point(0.5, 10, 100), Point(16, 110, 200)]
    assert rank.stored("laptop") == [Point(16, 20, 100)]
    assert rank.stored("full") == []


def test_command_trains_scores_and_writes(small, folders, monkeypatch, capsys):
    profile = replace(small, name="tiny")
    monkeypatch.setattr("helpers.cli.students.get_profile", lambda _: profile)
    assert main(["rank", "--values", "2"]) == 0
    (path,) = (folders / "runs" / "tiny" / "results" / "rank").iterdir()
    written = json.loads(path.read_text())
    assert (written["arm"], written["n"]) == ("rank_2", 3)
    assert "LoRA rank 2: " in capsys.readouterr().out
    assert not (folders / "shipped").exists()


@pytest.mark.parametrize("name", ["temperature", "weight"])
def test_pair_point_trains_and_scores(small, name):
    evaluation = find_sweep(name).train(2.0, profile=small)
    assert len(evaluation.correct) == 3


def test_share_points_start_from_one_warm_student(small, monkeypatch):
    monkeypatch.setattr(sweeps, "WARM_TRACES", 4)
    share = find_sweep("share")
    warm = sweeps.warm_weights(share.models(small), 7)
    assert any(x.abs().sum() > 0 for n, x in warm.items() if "lora_B" in n)
    student, trainer = share.build(0.5, share.models(small), 7, {})
    state = student.model.state_dict()
    for name, x in warm.items():  # adapters are rounded to bfloat16 on the way
        torch.testing.assert_close(state[name], x, rtol=0.01, atol=1e-6)
    assert (trainer.share, len(trainer.train_dataset)) == (0.5, 4)
    assert len(share.train(1.0, profile=small).correct) == 3


def test_stopped_point_is_none_and_stops_at_once(small):
    steps = []
    looks = {"stop": lambda: len(steps) >= 1}
    looks["progress"] = lambda done, _: steps.append(done)
    assert find_sweep("rank").train(2, profile=small, **looks) is None
    assert steps == [1]


def test_stop_is_heard_between_two_batches_of_answers(small, monkeypatch):
    answered, usual = [], sweeps.evaluate

    def evaluate(student, part, **options):
        answered.append(len(part))
        return usual(student, part, **options)

    monkeypatch.setattr(sweeps, "evaluate", evaluate)
    one = replace(small, evaluation_batch=1)
    looks = {"stop": lambda: len(answered) == 2}
    assert find_sweep("rank").train(2, profile=one, **looks) is None
    assert answered == [1, 1]


def test_changes_of_the_rank_slider_reach_the_trainer(small):
    changes = {"epochs": 1, "alpha / rank": 4.0, "rate x": 0.5}
    student, trainer = find_sweep("rank").build(2, small, 7, changes)
    assert trainer.args.num_train_epochs == 1
    assert trainer.args.learning_rate == 0.5 * small.learning_rate
    (adapter,) = student.model.peft_config.values()
    assert (adapter.r, adapter.lora_alpha) == (2, 8)
