"""helpers.features and helpers.trainer, on tiny models."""

from __future__ import annotations

from dataclasses import replace

import pytest
import tiny
import torch
from safetensors.torch import load_file
from transformers import Qwen3ForCausalLM

from helpers.distill import Lesson, Objective, distill_student
from helpers.features import (
    FeatureTerm,
    Projectors,
    depth,
    layer_map,
    linear_cka,
    tapped,
)
from helpers.losses import LossError
from helpers.models import add_lora, load_student, load_teacher
from helpers.sft import RunError

IDS = torch.tensor([[5, 6, 7, 8, 9], [9, 8, 7, 6, 5]])


@pytest.fixture(scope="module")
def teacher():
    return tiny.teacher()


@pytest.fixture(scope="module")
def profile(tmp_path_factory):
    """One folder for the trainings of this file: each has its own run."""
    folder = tmp_path_factory.mktemp("features")
    return tiny.pair(folder, learning_rate=1e-3)


def train(profile, teacher, term, *, run="features", soft=0.0, **options):
    objective = Objective(soft=soft, features=term)
    cache = options.pop("cache", None)
    return distill_student(
        Lesson(tiny.traces(12), teacher, objective, cache),
        profile=profile,
        run=run,
        epochs=options.pop("epochs", 1),
        progress=False,
        **options,
    )


def losses(done):
    return [entry["loss"] for entry in done.log]


def noise(rows, columns, seed):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(rows, columns, generator=generator)


# --- CKA, maps, states ---


def test_cka_of_a_rotated_scaled_shifted_copy_is_one():
    first = noise(40, 6, 1).double()
    turned = torch.linalg.qr(noise(6, 6, 2).double()).Q
    assert linear_cka(first, 3 * first @ turned + 5).item() == pytest.approx(1)
    stretched = first @ torch.diag(torch.tensor([9.0, 1, 1, 1, 1, 1]).double())
    assert linear_cka(first, stretched).item() < 0.9


def test_cka_of_independent_noise_is_small_and_symmetric():
    first, second = noise(4000, 6, 1), noise(4000, 4, 2)
    forth, back = linear_cka(first, second), linear_cka(second, first)
    assert 0 <= forth.item() < 0.01
    assert forth.item() == pytest.approx(back.item())


def test_cka_by_hand():
    """(0,1,2) and (0,1,0): centred dot products 0 over 2 * 2/3 -> 0."""
    first = torch.tensor([[0.0], [1.0], [2.0]])
    assert linear_cka(
        first, torch.tensor([[0.0], [1.0], [0.0]])
    ).item() == pytest.approx(0)
    third = torch.tensor([[0.0], [0.0], [1.0]])  # correlation 0.866
    assert linear_cka(first, third).item() == pytest.approx(0.75)


def test_cka_needs_the_same_positions():
    with pytest.raises(LossError, match="40 and 39 positions"):
        linear_cka(noise(40, 3, 1), noise(39, 3, 1))


def test_layer_maps():
    assert layer_map("last", 3, 4) == ((3, 4),)
    assert layer_map("even", 3, 4) == ((1, 1), (2, 3), (3, 4))
    assert layer_map("even", 2, 8) == ((1, 4), (2, 8))
    grid = torch.zeros(3, 5)
    grid[1, 2] = grid[2, 2] = 1.0
    grid[2, 0] = 9.0  # the embedding does not count
    assert layer_map("cka", 2, 4, grid) == ((1, 2), (2, 2))
    with pytest.raises(LossError, match="grid"):
        layer_map("cka", 2, 4)
    with pytest.raises(LossError, match="'first'"):
        layer_map("first", 2, 4)


def test_tapped_states_equal_output_hidden_states(teacher):
    model = teacher.model
    with torch.no_grad(), tapped(model, [0, 1, 2]) as states:
        asked = model(input_ids=IDS, output_hidden_states=True)
    assert sorted(states) == [0, 1, 2] and depth(model) == 2
    for layer, state in states.items():
        assert torch.equal(state, asked.hidden_states[layer])
    with torch.no_grad():
        model(input_ids=IDS + 1)
    assert torch.equal(states[2], asked.hidden_states[2])  # hooks are gone


def test_tapped_works_through_adapters(profile):
    student = add_lora(load_student(profile), rank=2)
    with torch.no_grad(), tapped(student.model, [1]) as states:
        asked = student.model(input_ids=IDS, output_hidden_states=True)
    assert torch.equal(states[1], asked.hidden_states[1])


# --- the trainer ---


@pytest.mark.parametrize("kind", ["mse", "cosine", "relation"])
def test_feature_loss_falls_and_teacher_never_changes(profile, teacher, kind):
    before = [p.detach().clone() for p in teacher.model.parameters()]
    term = FeatureTerm("even", 1.0, kind)
    done = train(profile, teacher, term, run=f"falls-{kind}", epochs=3)
    assert losses(done)[-1] < losses(done)[0]
    assert all(map(torch.equal, before, teacher.model.parameters()))
    assert all(p.grad is None for p in teacher.model.parameters())
    final = done.folder / "final"  # the student that is exported
    assert not (final / "projectors.safetensors").exists()
    assert all(
        "lora" in n for n in load_file(final / "adapter_model.safetensors")
    )


def test_weight_zero_is_the_training_without_features(profile, teacher):
    plain = train(profile, teacher, None, run="plain", soft=0.6)
    zero = train(
        profile, teacher, FeatureTerm("last", 0.0), run="zero", soft=0.6
    )
    assert losses(plain) == pytest.approx(losses(zero), abs=1e-6)


def test_self_as_teacher_costs_nothing(profile):
    """The student's own states, relations: the feature part is 0."""
    whole = replace(profile, load_in_4bit=False)
    student = load_teacher(whole, whole.student)
    term = FeatureTerm("last", 50.0, "relation")
    first = train(whole, student, term, run="self")
    plain = train(whole, student, None, run="self-plain")
    assert losses(first)[0] == pytest.approx(losses(plain)[0], abs=1e-3)


def test_chunked_objective_takes_features_too(profile, teacher):
    term = FeatureTerm("even", 0.5, "relation")
    whole = Objective(features=term)
    runs = [
        distill_student(
            Lesson(tiny.traces(12), teacher, objective),
            profile=profile,
            run=f"chunk{objective.chunk}",
            epochs=1,
            progress=False,
        )
        for objective in (whole, replace(whole, chunk=7))
    ]
    assert losses(runs[0]) == pytest.approx(losses(runs[1]), abs=1e-5)


def test_accumulated_steps_equal_one_large_batch(profile, teacher):
    term = FeatureTerm("even", 1.0, "cosine")
    whole = replace(profile, batch_size=4, gradient_accumulation=1)
    parts = replace(profile, batch_size=1, gradient_accumulation=4)
    one = train(whole, teacher, term, run="whole")
    four = train(parts, teacher, term, run="parts")
    assert losses(one) == pytest.approx(losses(four), abs=1e-4)


def test_killed_run_goes_on_with_its_projectors(profile, teacher, monkeypatch):
    term = FeatureTerm(((1, 1), (2, 2)), 1.0, "mse")
    straight = train(profile, teacher, term, run="straight", epochs=2)
    from helpers.trainer import FeatureTrainer

    usual = FeatureTrainer.more_loss

    def dies(self, *args):
        if self.state.epoch and self.state.epoch >= 1.2:
            raise KeyboardInterrupt
        return usual(self, *args)

    monkeypatch.setattr(FeatureTrainer, "more_loss", dies)
    with pytest.raises(KeyboardInterrupt):
        train(profile, teacher, term, run="killed", epochs=2)
    monkeypatch.setattr(FeatureTrainer, "more_loss", usual)
    resumed = train(profile, teacher, term, run="killed", epochs=2)
    assert losses(resumed)[-1] == pytest.approx(losses(straight)[-1], abs=1e-4)


def test_full_fine_tuning_works_and_saves_no_projector(profile, teacher):
    plain = replace(profile, load_in_4bit=False)
    student = load_teacher(plain, plain.student)
    assert isinstance(student.model, Qwen3ForCausalLM)
    student.model.train().requires_grad_(True)
    before = student.model.model.layers[0].mlp.up_proj.weight.detach().clone()
    done = train(
        plain,
        teacher,
        FeatureTerm("even", 1.0, "cosine"),
        run="full",
        student=student,
    )
    after = student.model.model.layers[0].mlp.up_proj.weight
    assert not torch.equal(before, after)
    again = load_teacher(plain, str(done.folder / "final"))
    with torch.no_grad():
        ours = student.model.eval()(input_ids=IDS).logits
        theirs = again.model(input_ids=IDS).logits
    assert torch.equal(ours, theirs)


def test_projectors_have_orthonormal_starts():
    pairs = ((1, 1), (2, 3))
    maps = Projectors(pairs, 4, 6, seed=7)
    assert sum(p.numel() for p in maps.parameters()) == 2 * 4 * 6
    weight = maps.maps["2_3"].weight  # (6, 4)
    assert torch.allclose(weight.T @ weight, torch.eye(4), atol=1e-5)
    again = Projectors(pairs, 4, 6, seed=7)
    assert torch.equal(again.maps["1_1"].weight, maps.maps["1_1"].weight)


def test_refusals_are_sentences(profile, teacher):
    with pytest.raises(LossError, match="no layer 3"):
        with tapped(teacher.model, [3]):
            pass
    with pytest.raises(LossError, match="teacher has no layer 9"):
        train(profile, teacher, FeatureTerm(((1, 9),)), run="deep")
    with pytest.raises(LossError, match="student has no layer -1"):
        train(profile, teacher, FeatureTerm(((-1, 1),)), run="negative")
    with pytest.raises(LossError, match="weight is -1.0"):
        FeatureTerm("even", -1.0)
    with pytest.raises(LossError, match="no pair of layers"):
        FeatureTerm(())
    with pytest.raises(RunError, match="teacher in memory"):
        train(
            profile,
            replace(teacher, model=None),
            FeatureTerm("even"),
            run="cache",
            cache=object(),
        )


def test_tapped_reads_the_last_states_of_a_decoder_that_skips_its_norm(
    teacher, monkeypatch
):
    """As Unsloth's on a GPU: the norm's weight is read, no module called."""
    norm = teacher.model.get_decoder().norm
    unhooked = type(
        "Unhooked", (type(norm),), {"__call__": type(norm).forward}
    )
    monkeypatch.setattr(norm, "__class__", unhooked)
    with torch.no_grad(), tapped(teacher.model, [1, 2]) as states:
        asked = teacher.model(input_ids=IDS, output_hidden_states=True)
    assert torch.equal(states[2], asked.hidden_states[2])
