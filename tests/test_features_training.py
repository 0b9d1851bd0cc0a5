"""helpers.trainer with a feature term, on tiny models."""

from __future__ import annotations

from dataclasses import replace

import pytest
import tiny
import torch
from safetensors.torch import load_file

from helpers.distill import (
    FeatureTrainer,
    Lesson,
    Objective,
    distill_student,
)
from helpers.features import FeatureTerm
from helpers.models import load_teacher

IDS = torch.tensor([[5, 6, 7, 8, 9], [9, 8, 7, 6, 5]])


@pytest.fixture(scope="module")
def profile(tmp_path_factory):
    """One folder for the trainings of this file: each has its own run."""
    folder = tmp_path_factory.mktemp("features")
    return tiny.pair(folder, learning_rate=1e-3)


@pytest.fixture(scope="module")
def teacher():
    return tiny.teacher()


def train(profile, teacher, term, run, *, epochs=1, student=None, **options):
    objective = Objective(features=term, **{"soft": 0.0} | options)
    return distill_student(
        Lesson(tiny.traces(12), teacher, objective),
        profile=profile,
        run=run,
        epochs=epochs,
        student=student,
        progress=False,
    )


def losses(done):
    return [entry["loss"] for entry in done.log]


@pytest.mark.parametrize("kind", ["mse", "cosine", "relation"])
def test_feature_loss_falls_and_teacher_never_changes(profile, teacher, kind):
    before = [p.detach().clone() for p in teacher.model.parameters()]
    term = FeatureTerm("even", 1.0, kind)
    done = train(profile, teacher, term, f"falls-{kind}", epochs=3)
    assert losses(done)[-1] < losses(done)[0]
    assert all(map(torch.equal, before, teacher.model.parameters()))
    assert all(p.grad is None for p in teacher.model.parameters())
    final = done.folder / "final"  # the student that is exported
    assert not (final / "projectors.safetensors").exists()
    saved = load_file(final / "adapter_model.safetensors")
    assert all("lora" in name for name in saved)


def test_weight_zero_is_the_training_without_features(profile, teacher):
    plain = train(profile, teacher, None, "plain", soft=0.6)
    zero = train(profile, teacher, FeatureTerm("last", 0.0), "zero", soft=0.6)
    assert losses(plain) == pytest.approx(losses(zero), abs=1e-6)


def test_self_as_teacher_costs_nothing(profile):
    """The student's own states, relations: the feature part is 0."""
    whole = replace(profile, load_in_4bit=False)
    student = load_teacher(whole, whole.student)
    term = FeatureTerm("last", 50.0, "relation")
    first = train(whole, student, term, "self")
    plain = train(whole, student, None, "self-plain")
    assert losses(first)[0] == pytest.approx(losses(plain)[0], abs=1e-3)


def test_chunked_objective_takes_features_too(profile, teacher):
    term = FeatureTerm("even", 0.5, "relation")
    soft = Objective().soft
    whole = train(profile, teacher, term, "one-chunk", soft=soft)
    parts = train(profile, teacher, term, "chunks", soft=soft, chunk=7)
    assert losses(whole) == pytest.approx(losses(parts), abs=1e-5)


def test_accumulated_steps_equal_one_large_batch(profile, teacher):
    term = FeatureTerm("even", 1.0, "cosine")
    whole = replace(profile, batch_size=4, gradient_accumulation=1)
    parts = replace(profile, batch_size=1, gradient_accumulation=4)
    one = train(whole, teacher, term, "whole")
    four = train(parts, teacher, term, "parts")
    assert losses(one) == pytest.approx(losses(four), abs=1e-4)


def test_killed_run_goes_on_with_its_projectors(profile, teacher, monkeypatch):
    term = FeatureTerm(((1, 1), (2, 2)), 1.0, "mse")
    straight = train(profile, teacher, term, "straight", epochs=2)
    usual = FeatureTrainer.more_loss

    def dies(self, *args):
        if self.state.epoch and self.state.epoch >= 1.2:
            raise KeyboardInterrupt
        return usual(self, *args)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(FeatureTrainer, "more_loss", dies)
        train(profile, teacher, term, "killed", epochs=2)
    resumed = train(profile, teacher, term, "killed", epochs=2)
    assert losses(resumed)[-1] == pytest.approx(losses(straight)[-1], abs=1e-4)


def test_full_fine_tuning_changes_and_saves_the_whole_model(profile, teacher):
    plain = replace(profile, load_in_4bit=False)
    student = load_teacher(plain, plain.student)
    student.model.train().requires_grad_(True)
    before = student.model.model.layers[0].mlp.up_proj.weight.detach().clone()
    term = FeatureTerm("even", 1.0, "cosine")
    done = train(plain, teacher, term, "full", student=student)
    after = student.model.model.layers[0].mlp.up_proj.weight
    assert not torch.equal(before, after)
    again = load_teacher(plain, str(done.folder / "final"))
    with torch.no_grad():
        ours = student.model.eval()(input_ids=IDS).logits
        theirs = again.model(input_ids=IDS).logits
    assert torch.equal(ours, theirs)
