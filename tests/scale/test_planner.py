"""Expected memory: hand-computed values, and whole runs that were measured."""

import pytest

from helpers import CourseError
from helpers.rebuild import bench_memory
from helpers.rebuild.memory_points import POINTS, Point, read_points
from helpers.scale.planner import plan_memory, plan_on_policy, weight_bytes
from helpers.scale.shapes import load_shape

SMALL, QWEN = load_shape("gemma-3-270m-it"), load_shape("Qwen3-0.6B")


def test_plan_memory_by_hand():
    plan = plan_memory(QWEN, rank=8, batch=2, length=100)
    trained = QWEN.adapters(8)
    a_layer = 18 * 1024 + 10 * 2048 + 8 * 1024 + 8 * 3072 + 14 * 8
    assert plan.adapters == 6 * trained
    assert plan.gradients == 4 * trained and plan.optimizer == 8 * trained
    assert plan.activations == 200 * (28 * a_layer + 4 * 1024)
    assert plan.logits == 16 * 200 * 151_936
    assert plan.cache == plan.teacher == 0
    assert plan.total == (
        weight_bytes(QWEN, 4) + 18 * trained + plan.activations + plan.logits
    )


def test_plan_memory_logits_hold_both_models():
    teacher = load_shape("Qwen3-1.7B")
    pair = {"teacher": teacher, "length": 512}
    plan = plan_memory(QWEN, method="logit", **pair)
    assert plan.teacher == weight_bytes(teacher, 16)
    assert plan.logits == 36 * 512 * 151_936
    for chunk in (64, 512, 2048):  # never more than there are tokens
        chunked = plan_memory(
            QWEN, method="logit_chunked", chunk=chunk, **pair
        )
        assert chunked.logits == 25 * min(chunk, 512) * 151_936


def test_plan_on_policy_by_hand():
    """Long rows: the learning is the peak; short and many: the writing."""
    teacher = load_shape("Qwen3-4B-Thinking-2507")
    row = {"batch": 2, "length": 1000}
    here = plan_on_policy(QWEN, teacher, teacher_bits=4, **row)
    assert here.teacher == weight_bytes(teacher, 4)
    assert here.logits == 25 * 256 * 151_936 and here.cache == 0
    away = plan_on_policy(QWEN, teacher, server=True, **row)
    assert away.teacher == 0
    assert away.logits == 16 * 2000 * 151_936  # all of them at once
    assert away.activations == here.activations
    many = plan_on_policy(QWEN, teacher, written=64, server=True, **row)
    assert many.cache == 64 * QWEN.cache_bytes(1000)
    assert many.optimizer == here.optimizer and many.teacher == 0
    assert many.gradients == 0  # they come later


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"rank": 0}, "cannot be trained"),
        ({"method": "logit"}, "holds a teacher"),
        ({"method": "logit", "teacher": SMALL}, "vocabularies differ"),
    ],
)
def test_plan_memory_refuses_what_cannot_be(settings, message):
    with pytest.raises(CourseError, match=message):
        plan_memory(QWEN, **settings)


def test_points_shipped_are_the_plans_promise():
    """Every measured peak is within 15% of the plan (the issue's number)."""
    points = [p for p in read_points() if p.device == "cpu"]
    assert {p.point for p in points} == set(POINTS)
    errors = {str(p.point): p.error for p in points}
    assert max(map(abs, errors.values())) < 0.15, errors


@pytest.mark.slow
def test_measure_one_point_here(monkeypatch):
    """A real child process: a small model, measured and planned.

    The process grows by 60 MiB that no plan knows: pages of the libraries'
    code (35 MiB) and objects of theirs, first touched in the run. The row is
    long enough that the tensors outweigh them: 60 of 840 MiB. With 128
    tokens it was 60 of 450, and a busy machine's few MiB more were too many.
    """
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    point = Point("SmolLM2-135M-Instruct", length=512)
    [measured] = bench_memory.measure_all((point,))
    assert measured.point == point
    assert abs(measured.error) < 0.15, measured.error
