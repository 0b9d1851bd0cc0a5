"""Side-by-side measurements: the figures are those of real processes."""

from __future__ import annotations

import json
import sys

import pytest

from helpers.rebuild import bench, bench_arms, bench_processes, children
from helpers.rebuild.bench_processes import ARMS, JOBS, RESULT, ratios, run_arm

needs_gloo = pytest.mark.skipif(
    sys.platform == "win32", reason="torchrun was never tried on Windows"
)


def test_summarize_is_the_median_and_its_spread():
    rounds = {"cache_step": [1.7, 1.25, 1.43], "cache_bytes": [1362.34]}
    assert bench.summarize(rounds) == {
        "ratios": {"cache_step": 1.43, "cache_bytes": 1362.0},
        "spread": {"cache_step": [1.25, 1.7], "cache_bytes": [1362, 1362]},
    }


def test_bench_kd_lets_arms_take_turns_and_prints_json_alone(
    monkeypatch, capfd
):
    asked = []
    figures = {
        "bytes": {"dense": 1200, "cached": 3},
        "naive": {"mb": 900, "seconds": 4, "loss": 2, "gradient": 5},
        "chunked": {"mb": 100, "seconds": 2, "loss": 2, "gradient": 5},
        "online": {"seconds": 3.0, "teacher": 1.5},
        "cached": {"seconds": 2.0},
    }

    def child(module, arm):
        asked.append(arm)
        return figures[arm]

    monkeypatch.setattr(bench, "run_child", child)
    assert bench.main(["--only", "kd", "--json"]) == 0
    ratios = json.loads(capfd.readouterr().out)["ratios"]
    assert asked == ["bytes"] + 3 * ["naive", "chunked"] + 3 * [
        "online",
        "cached",
    ]
    assert (ratios["kd_memory"], ratios["kd_time"]) == (9, 0.5)
    assert (ratios["cache_bytes"], ratios["cache_step"]) == (400, 1.5)
    assert ratios["teacher_share"] == 0.5


def test_step_arm_times_steps_and_the_teacher(monkeypatch):
    monkeypatch.setattr(bench_arms, "ROWS", 48)
    figures = bench_arms.step_arm()
    assert 0 < figures["teacher"] < figures["seconds"]


def test_run_child_shows_why_a_process_died():
    with pytest.raises(RuntimeError, match="helpers.gone"):
        children.run_child("helpers.gone", "traces")


# --- one process against two -------------------------------------------------


def test_ratios_by_hand():
    speed = {"core": 100, "one": 120, "two": 180}
    assert ratios({"tokens_per_second": {"traces": speed}}) == {
        "traces_two_over_core": 1.8,
        "traces_two_over_one": 1.5,
    }


def test_stored_figures_hold_every_arm():
    content = json.loads(RESULT.read_text(encoding="utf-8"))
    speeds = content["tokens_per_second"]
    assert speeds.keys() == JOBS.keys()
    assert all(by_arm.keys() == ARMS.keys() for by_arm in speeds.values())
    assert content["cores"] >= 2


def test_measure_all_keeps_the_fastest_round(tmp_path, monkeypatch):
    speeds = iter(range(1, 1 + 3 * len(ARMS) * len(JOBS)))
    result = tmp_path / "processes" / "cpu.json"
    monkeypatch.setattr(bench_processes, "RESULT", result)
    monkeypatch.setattr(
        bench_processes, "run_arm", lambda job, arm: next(speeds)
    )
    content = bench_processes.measure_all()
    assert content == json.loads(result.read_text())
    by_job = content["tokens_per_second"]
    assert sorted(s for by in by_job.values() for s in by.values()) == list(
        range(19, 28)  # the last round was the fastest
    )


@needs_gloo
@pytest.mark.slow
def test_run_arm_measures_two_real_processes():
    assert run_arm("traces", "two", size=16) > 0
