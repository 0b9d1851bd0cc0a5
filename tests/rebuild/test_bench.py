"""One process against two: the figures are those of real processes."""

from __future__ import annotations

import json
import sys

import pytest

from helpers.rebuild import bench_processes
from helpers.rebuild.bench_processes import ARMS, JOBS, RESULT, ratios, run_arm

needs_gloo = pytest.mark.skipif(
    sys.platform == "win32", reason="torchrun was never tried on Windows"
)


def test_ratios_by_hand():
    speed = {"core": 100, "one": 120, "two": 180}
    assert ratios({"tokens_per_second": {"traces": speed}}) == {
        "traces_two_over_core": 1.8,
        "traces_two_over_one": 1.5,
    }


def test_the_stored_figures_hold_every_arm():
    content = json.loads(RESULT.read_text(encoding="utf-8"))
    speeds = content["tokens_per_second"]
    assert speeds.keys() == JOBS.keys()
    assert all(found.keys() == ARMS.keys() for found in speeds.values())
    assert min(min(found.values()) for found in speeds.values()) > 0
    assert content["cores"] >= 2


def test_measure_all_keeps_the_fastest_round(tmp_path, monkeypatch):
    rounds = iter(range(1, 1 + 3 * len(ARMS) * len(JOBS)))
    monkeypatch.setattr(bench_processes, "RESULT", tmp_path / "p" / "cpu.json")
    monkeypatch.setattr(
        bench_processes, "run_arm", lambda job, arm: float(next(rounds))
    )
    content = bench_processes.measure_all()
    assert content == json.loads(bench_processes.RESULT.read_text())
    last = 2 * len(ARMS) * len(JOBS)  # the last round was the fastest
    found = [
        speed
        for by_arm in content["tokens_per_second"].values()
        for speed in by_arm.values()
    ]
    assert found == [last + i for i in range(1, 1 + len(ARMS) * len(JOBS))]


@needs_gloo
@pytest.mark.slow
def test_run_arm_measures_two_real_processes():
    assert run_arm("traces", "two", size=16) > 0


@needs_gloo
@pytest.mark.slow
def test_run_arm_shows_why_a_process_died(monkeypatch):
    monkeypatch.setattr(bench_processes, "MODULE", "helpers.gone")
    with pytest.raises(RuntimeError, match="(?s)traces, two.*helpers.gone"):
        run_arm("traces", "two")


def test_bench_summarize_is_the_median_and_its_spread():
    from helpers.rebuild.bench import summarize

    rounds = {"cache_step": [1.7, 1.25, 1.43], "cache_bytes": [1362.34]}
    assert summarize(rounds) == {
        "ratios": {"cache_step": 1.43, "cache_bytes": 1362.0},
        "spread": {"cache_step": [1.25, 1.7], "cache_bytes": [1362, 1362]},
    }


def test_bench_arms_take_turns(monkeypatch, tmp_path):
    from helpers.rebuild import bench

    asked = []
    seconds = {"online": 3.0, "cached": 2.0}

    def worker(name, folder):
        asked.append(name)
        return {"seconds": seconds[name], "teacher": 1.0}

    monkeypatch.setattr(bench, "run_worker", worker)
    figures = bench.compare_steps(tmp_path)
    assert asked == ["online", "cached"] * bench.ROUNDS
    assert figures["cache_step"] == [1.5] * bench.ROUNDS
    assert figures["teacher_share"] == [1 / 3] * bench.ROUNDS
