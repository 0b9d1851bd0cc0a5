"""Side-by-side measurements: the figures are those of real processes."""

from __future__ import annotations

import json
import sys

import pytest

from helpers.rebuild import bench
from helpers.rebuild.bench_processes import run_arm


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

    def child(arm):
        asked.append(arm)
        return figures[arm]

    monkeypatch.setattr(bench, "run_arm", child)
    assert bench.main(["--only", "kd", "--json"]) == 0
    ratios = json.loads(capfd.readouterr().out)["ratios"]
    turns = 3 * ["naive", "chunked"] + 3 * ["online", "cached"]
    assert asked == ["bytes", *turns]
    assert (ratios["kd_memory"], ratios["kd_time"]) == (9, 0.5)
    assert (ratios["cache_bytes"], ratios["cache_step"]) == (400, 1.5)
    assert ratios["teacher_share"] == 0.5


@pytest.mark.slow
@pytest.mark.skipif(
    sys.platform == "win32", reason="torchrun was never tried on Windows"
)
def test_run_arm_measures_two_real_processes():
    assert run_arm("traces", "two", size=16) > 0
