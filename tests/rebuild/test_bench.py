"""Side-by-side measurements: the figures are those of real processes."""

import json
import sys
from importlib.util import find_spec

import pytest

from helpers.rebuild import bench, bench_losses
from helpers.rebuild.bench_processes import run_arm


def test_bench_kd_arms_take_turns_and_json_is_alone(monkeypatch, capfd):
    asked = []
    figures = {
        "bytes": {"dense": 1200, "cached": 3},
        "online": {"seconds": 3.0, "teacher": 1.5},
        "cached": {"seconds": 2.0},
    }

    def child(arm):
        asked.append(arm)
        return figures[arm]

    monkeypatch.setattr(bench, "run_arm", child)
    assert bench.main(["--only", "kd", "--json"]) == 0
    ratios = json.loads(capfd.readouterr().out)["ratios"]
    assert asked == ["bytes", *(3 * ["online", "cached"])]
    assert (ratios["cache_bytes"], ratios["cache_step"]) == (400, 1.5)
    assert ratios["teacher_share"] == 0.5


def test_bench_losses_are_one_loss(monkeypatch):
    """Ours and TRL's; Liger's where it is installed."""
    for name in ("VOCABULARY", "POSITIONS", "CHUNK"):
        monkeypatch.setattr(bench_losses, name, {"CHUNK": 4}.get(name, 40))
    ways = ["naive", "chunked", "trl"]
    ways += ["liger"] * (find_spec("liger_kernel") is not None)
    first, *others = map(bench_losses.loss_arm, ways)
    for figures in others:
        for name in ("loss", "gradient"):
            assert figures[name] == pytest.approx(first[name], rel=1e-4)


@pytest.mark.slow
@pytest.mark.skipif(
    sys.platform == "win32", reason="torchrun was never tried on Windows"
)
def test_run_arm_measures_two_real_processes():
    assert run_arm("traces", "two", size=16) > 0
