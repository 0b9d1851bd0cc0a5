"""Expected memory: hand-computed values, and what PyTorch really keeps."""

from __future__ import annotations

from dataclasses import asdict, replace

import pytest
import tiny
import torch

from helpers import CourseError
from helpers.models import add_lora, load_student
from helpers.rebuild import memory_points
from helpers.rebuild.memory_points import (
    POINTS,
    Measured,
    Point,
    device_file,
    read_points,
    write_points,
)
from helpers.scale.costs import (
    BANDWIDTH_SHARE,
    CARDS,
    COMPUTE_SHARE,
    active_parameters,
    cache_moves,
    generation_seconds,
    training_seconds,
)
from helpers.scale.planner import plan_memory, weight_bytes
from helpers.scale.shapes import load_shape, read_shape

SMALL, QWEN = load_shape("gemma-3-270m-it"), load_shape("Qwen3-0.6B")


def test_weight_bytes_quantize_the_projections_alone():
    rest = 2 * (SMALL.embedding + SMALL.norms)
    assert weight_bytes(SMALL, 16) == 2 * SMALL.parameters
    assert weight_bytes(SMALL, 32) == 4 * SMALL.parameters
    nf4 = (weight_bytes(SMALL, 4) - rest) / SMALL.linear
    assert nf4 == pytest.approx(0.5 + 1 / 64 + 1 / 4096, abs=1e-6)


def test_plan_memory_by_hand():
    plan = plan_memory(QWEN, rank=8, batch=2, length=100)
    trained = QWEN.adapters(8)
    a_layer = 18 * 1024 + 10 * 2048 + 8 * 1024 + 8 * 3072 + 14 * 8
    assert plan.adapters == 6 * trained
    assert plan.gradients == 4 * trained and plan.optimizer == 8 * trained
    assert plan.activations == 200 * (28 * a_layer + 4 * 1024)
    assert plan.logits == 16 * 200 * 151_936
    assert plan.cache == plan.teacher == 0
    assert plan.total == sum(asdict(plan).values())


def test_plan_memory_chunks_stop_growing():
    sizes = [plan_memory(QWEN, length=n).logits for n in (128, 256, 512)]
    assert sizes[0] * 2 == sizes[1] == sizes[2]


def test_plan_memory_checkpointing_trades_activations_only():
    plain = plan_memory(SMALL, length=1024)
    spared = plan_memory(SMALL, length=1024, checkpointing=True)
    assert spared.activations < plain.activations / 8
    assert replace(spared, activations=0) == replace(plain, activations=0)


def test_plan_memory_rank_0_trains_everything():
    plan = plan_memory(SMALL, rank=0, bits=16)
    trained = plan.adapters + plan.gradients + plan.optimizer
    assert trained == 18 * SMALL.parameters and plan.weights == 0


def test_plan_memory_logits_hold_both_models():
    teacher = load_shape("Qwen3-1.7B")
    plan = plan_memory(QWEN, method="logit", length=512, teacher=teacher)
    assert plan.teacher == weight_bytes(teacher, 16)
    assert plan.logits == 36 * 512 * 151_936
    chunked = plan_memory(
        QWEN, method="logit_chunked", length=512, teacher=teacher, chunk=64
    )
    assert chunked.logits == 25 * 64 * 151_936


def test_plan_memory_generation_is_weights_and_cache():
    plan = plan_memory(QWEN, method="generate", batch=4, length=2048)
    assert plan.cache == 4 * QWEN.cache_bytes(2048)
    assert plan.adapters == plan.optimizer == 0
    # One layer: keys and values of 8 heads for 16, and one of them twice.
    assert plan.activations == 4 * 2048 * 2 * 8 * 128 * (2 * 2 + 1)
    long = plan_memory(
        QWEN, method="generate", batch=4, length=2048, prompt=2048
    )
    assert long.activations > plan.activations


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"method": "dpo"}, "choose one of sft"),
        ({"bits": 8}, "choose 4, 16 or 32"),
        ({"rank": 0}, "cannot be trained themselves"),
        ({"batch": 0}, "start at 1"),
        ({"rank": -1}, "start at 1, the rank at 0"),
        ({"method": "logit"}, "holds a teacher"),
        ({"method": "logit", "teacher": SMALL}, "vocabularies differ"),
    ],
)
def test_plan_memory_refuses_what_cannot_be(settings, message):
    with pytest.raises(CourseError, match=message):
        plan_memory(QWEN, **settings)


@pytest.mark.parametrize("kind", ["student", "kd_student"])
def test_kept_per_token_is_what_pytorch_keeps(tmp_path, kind):
    """The count against saved-tensor hooks, by the slope over tokens."""
    profile = tiny.PROFILES["mini"]
    profile = replace(
        profile, dtype="bfloat16", student=getattr(profile, kind)
    )
    model = add_lora(load_student(profile), rank=8).model.train()
    own = {p.untyped_storage().data_ptr() for p in model.parameters()}

    def kept(tokens: int) -> int:
        found: dict = {}

        def pack(tensor):
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in own:
                found[storage.data_ptr()] = storage.nbytes(), tensor
            return tensor

        ids = torch.full((1, tokens), 5)
        hooks = torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x)
        with hooks, torch.autocast("cpu", torch.bfloat16):
            model.get_base_model().model(ids, use_cache=False)
        return sum(size for size, _ in found.values())

    shape = read_shape(model.config.to_dict())
    slope = (kept(64) - kept(16)) / 48  # short of the sliding window
    counted = shape.layers * shape.kept_per_token(8)
    assert counted == pytest.approx(slope, rel=0.03)


def test_points_shipped_are_the_plans_promise():
    """Every measured peak is within 15% of the plan (the issue's number)."""
    points = [p for p in read_points() if p.device == "cpu"]
    assert {p.point for p in points} == set(POINTS)
    errors = {str(p.point): p.error for p in points}
    assert max(map(abs, errors.values())) < 0.15, errors


def test_points_survive_writing_and_reading(tmp_path):
    made = [Measured(Point("Qwen3-0.6B", batch=2), 10**9, "NVIDIA H100 80GB")]
    path = write_points(made, tmp_path)
    assert path == device_file("NVIDIA H100 80GB", tmp_path)
    assert path.name == "nvidia_h100_80gb.json"
    assert read_points(tmp_path) == made


def test_points_broken_file_has_a_cure(tmp_path):
    (tmp_path / "cpu.json").write_text('{"device": "cpu", "points": [{}]}')
    with pytest.raises(CourseError, match="cpu.json is broken.*measure again"):
        read_points(tmp_path)


def test_point_says_what_it_is():
    text = str(Point("Qwen3-0.6B", "logit", teacher="Qwen3-1.7B"))
    assert text == (
        "Qwen3-0.6B, logit, 4 bits, rank 16, 1 x 256, teacher Qwen3-1.7B"
    )
    assert "all weights" in str(Point("Qwen3-0.6B", bits=16, rank=0))
    assert memory_points.MEASURED.name == "memory"


@pytest.mark.slow
def test_measure_one_point_here(monkeypatch):
    """A real child process: a small shape, measured and planned."""
    from helpers.rebuild import bench_memory

    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    point = Point("SmolLM2-135M-Instruct", length=128)
    (found,) = bench_memory.measure_all((point,))
    assert found.point == point and abs(found.error) < 0.15, found.error


def test_training_seconds_by_hand():
    card = CARDS[2]
    seconds = training_seconds(SMALL, 1000, card)
    passes = 4 * active_parameters(SMALL) * 1000
    peak = COMPUTE_SHARE * card.tflops * 1e12
    assert seconds == pytest.approx(passes / peak)
    again = training_seconds(SMALL, 1000, card, checkpointing=True)
    assert again == pytest.approx(1.5 * seconds)


def test_generation_seconds_weights_are_read_once_a_step():
    card = CARDS[2]
    one, eight = (
        generation_seconds(QWEN, 8, 100, card, batch=batch, server=True)
        for batch in (1, 8)
    )
    assert 6 < one / eight < 8  # eight rows in one step, with eight caches
    few = generation_seconds(QWEN, 9, 100, card, batch=8, server=True)
    assert few == pytest.approx(2 * eight)  # a ninth answer: a second batch


def test_generation_seconds_have_a_floor_and_pay_for_unpacking():
    card = CARDS[-1]
    plain = generation_seconds(QWEN, 8, 100, card, batch=8)
    assert plain == pytest.approx(100 * 0.03)  # launches alone
    packed, wide = (
        generation_seconds(QWEN, 8, 100, card, batch=8, bits=b, server=True)
        for b in (4, 16)
    )
    assert packed > wide


def test_generation_seconds_count_every_move_of_the_cache():
    """12 rows of the 4B teacher at 2,000 tokens: 39 GB in one step."""
    teacher = load_shape("Qwen3-4B-Thinking-2507")
    assert cache_moves(teacher) == 11  # 4 query heads share a key
    assert cache_moves(load_shape("SmolLM2-135M-Instruct")) == 9
    card = CARDS[3]
    step = generation_seconds(teacher, 12, 4000, card, batch=12) / 4000
    moved = step * BANDWIDTH_SHARE * card.bandwidth * 1e9
    assert moved - weight_bytes(teacher, 16) == pytest.approx(39e9, rel=0.01)


def test_cards_know_an_h100():
    [card] = [card for card in CARDS if card.name.startswith("H100")]
    assert card.gib == 80 and card.bandwidth > 3000 and card.bfloat16
