"""helpers.distill: what a step computes, on tiny models with one tokenizer."""

from dataclasses import replace
from itertools import count
from types import SimpleNamespace

import pytest
import tiny
import torch
from safetensors.torch import load_file

from helpers import CourseError, chat
from helpers.distill import (
    Lesson,
    Objective,
    PairCollator,
    distill_student,
    pair_profile,
    pair_rows,
    pair_trainer,
)
from helpers.features import FeatureTerm
from helpers.logit_cache import write_cache
from helpers.models import load_teacher
from helpers.profiles import PROFILES
from helpers.sft import RunError, train_student

NUMBERS = count()


class FullCache:
    """What the teacher thinks of each row, all of the vocabulary."""

    def __init__(self, teacher, rows):
        self.k, self.temperature = len(teacher.tokenizer), 1.0
        self.rows, self.model = list(rows), teacher.model

    def row(self, number):
        row = self.rows[number]
        with torch.no_grad():
            ids = torch.tensor([row["input_ids"]])
            logits = self.model(input_ids=ids).logits
        trained = sum(label != -100 for label in row["labels"])
        values = logits[0, -trained - 1 : -1, : self.k].log_softmax(-1)
        return torch.arange(self.k).expand(values.shape), values

    def check_rows(self, rows):
        assert len(rows) == len(self.rows)


@pytest.fixture(scope="module")
def teacher():
    return tiny.teacher()


@pytest.fixture(scope="module")
def profile(tmp_path_factory):
    return tiny.pair(tmp_path_factory.mktemp("logit"), learning_rate=1e-3)


def run_of(profile, teacher, objective, cache=None, run=None, **options):
    """A short run on twelve traces; the teacher stays as it was."""
    weights = [] if cache else list(teacher.model.parameters())
    before = [weight.detach().clone() for weight in weights]
    done = distill_student(
        Lesson(tiny.traces(12), teacher, objective, cache),
        profile=profile,
        run=run or f"run{next(NUMBERS)}",
        progress=False,
        **{"epochs": 1} | options,
    )
    assert all(map(torch.equal, before, weights))
    assert all(weight.grad is None for weight in weights)
    return done


def imitating(layers, weight, kind="mse", *, soft=0.0):
    """An objective of text, or logits, and hidden states."""
    return Objective(soft=soft, features=FeatureTerm(layers, weight, kind))


def trainer_of(profile, teacher, objective):
    """Of an untrained student, on four traces."""
    options = {"profile": profile, "objective": objective, "epochs": 1}
    student = tiny.student(profile, rank=2)
    return pair_trainer(tiny.traces(4), student, teacher, **options)


def losses(done):
    return [entry["loss"] for entry in done.log]


def train(*arguments, **options):
    """The losses of a short run."""
    return losses(run_of(*arguments, **options))


@pytest.fixture(scope="module")
def usual(profile, teacher):
    """The losses of the default objective."""
    return train(profile, teacher, Objective(), run="usual")


def make_rows(teacher, max_length=512):
    pair = tiny.tokenizer(tiny.SMALL), teacher.tokenizer
    return pair_rows(tiny.traces(12), *pair, max_length=max_length)


def make_cache(teacher, traces, folder, **options):
    options["tokenizer"] = tiny.tokenizer(tiny.SMALL)
    return write_cache(traces, teacher, folder, **options)


@pytest.mark.parametrize("name", ["mini", "full"])
def test_pair_profile_is_the_one_tokenizer_pair_in_smaller_batches(name):
    before = PROFILES[name]
    pair = pair_profile(before)
    assert pair.teacher == before.kd_teacher
    assert pair.student == before.kd_student
    assert pair.batch_size == before.kd_batch_size
    assert pair.batch_size * pair.gradient_accumulation == (
        before.batch_size * before.gradient_accumulation
    )


@pytest.mark.parametrize(
    ("objective", "close"),
    [
        (Objective(soft=0.7), 1e-5),
        (imitating("even", 1.0, "cosine"), 1e-4),
    ],
)
def test_accumulation_is_one_batch(profile, teacher, objective, close):
    whole = replace(profile, batch_size=4, gradient_accumulation=1)
    parts = replace(profile, batch_size=1, gradient_accumulation=4)
    one = train(whole, teacher, objective)
    four = train(parts, teacher, objective)
    assert one == pytest.approx(four, abs=close)
    assert one[-1] < one[0]


@pytest.mark.parametrize(
    ("changes", "objective", "close"),
    [
        ({}, Objective(temperature=2.0), {"abs": 1e-5}),
        ({}, Objective(soft=0.5), {"abs": 1e-5}),
        ({}, Objective(soft=0.0), {"abs": 1e-5}),
        ({}, imitating("even", 0.5, "relation", soft=1.0), {"abs": 1e-5}),
        # autocast returns float32 states, the head stays in bfloat16
        ({"dtype": "bfloat16"}, Objective(), {"rel": 0.02}),
    ],
)
def test_chunked_steps_equal_whole(
    profile, teacher, changes, objective, close
):
    asked = replace(profile, **changes)
    whole = train(asked, teacher, objective)
    chunked = train(asked, teacher, replace(objective, chunk=7))
    assert whole == pytest.approx(chunked, **close)


@pytest.mark.parametrize(("asked", "chunk"), [(None, 64), (7, 7)])
def test_profile_asks_for_chunks(profile, teacher, asked, chunk):
    trainer = trainer_of(
        replace(profile, kd_chunk=64), teacher, Objective(chunk=asked)
    )
    assert trainer.objective.chunk == chunk


def test_full_cache_equals_the_teacher_in_memory(profile, teacher):
    cache, half = FullCache(teacher, make_rows(teacher)), Objective(soft=0.5)
    absent = replace(teacher, model=None)
    online = train(profile, teacher, half)
    for chunk in (None, 7):
        cached = train(profile, absent, replace(half, chunk=chunk), cache)
        assert online == pytest.approx(cached, abs=1e-5)


def test_without_soft_targets_it_is_plain_sft(profile, teacher):
    plain = train_student(
        tiny.traces(12), profile=profile, epochs=1, progress=False
    )
    hard = train(profile, teacher, Objective(soft=0.0))
    assert hard == pytest.approx([e["loss"] for e in plain.log], abs=1e-4)


def test_soft_targets_start_where_the_template_ends(teacher):
    row = make_rows(teacher)[0]
    head = sum(label == -100 for label in row["labels"])
    opened = row["input_ids"][head : row["soft_start"]]
    assert teacher.tokenizer.decode(opened) == chat.THINK_OPEN
    batch = PairCollator(0)([row])
    first = batch["soft_mask"][0].nonzero()[0].item()
    assert first + 1 == row["soft_start"]  # it predicts the token after it
    assert batch["soft_mask"][0].sum() == len(row["labels"]) - first - 1


def test_padded_logits_do_not_count(profile, teacher, usual):
    """Rows of the vocabulary without a token change nothing."""
    altered = load_teacher(PROFILES["mini"], profile.teacher)
    weight = altered.model.lm_head.weight.detach().clone()
    weight[len(teacher.tokenizer) :] = 9.0
    altered.model.lm_head.weight = torch.nn.Parameter(weight)
    changed = train(profile, altered, Objective())
    assert usual == pytest.approx(changed, abs=1e-6)


def test_long_rows_are_dropped_alike(profile, teacher, tmp_path, capsys):
    """The other rows stay beside their own targets."""
    sizes = [len(row["input_ids"]) for row in make_rows(teacher)]
    limit = sorted(sizes)[8]
    rows = make_rows(teacher, max_length=limit)
    assert [len(row["input_ids"]) for row in rows] == [
        size for size in sizes if size <= limit
    ]
    assert list(rows["row"]) == list(range(len(rows)))
    said = f"{12 - len(rows)} traces longer than {limit} dropped"
    assert said in capsys.readouterr().out
    short = replace(profile, max_length=limit)
    online = train(short, teacher, Objective())
    whole = {"k": len(teacher.tokenizer), "max_length": limit}
    cache = make_cache(teacher, tiny.traces(12), tmp_path, **whole)
    assert len(cache) == len(rows) < 12
    cached = train(short, teacher, Objective(), cache)
    assert cached == pytest.approx(online, abs=2e-3)


@pytest.mark.parametrize(
    "wrong",
    [
        {"soft": 1.2},
        {"soft": -0.1},
        {"chunk": 0},
        {"kind": "banana"},
        {"temperature": 0.0},
    ],
)
def test_objective_refuses(wrong):
    with pytest.raises(CourseError):
        Objective(**wrong)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"kind": "reverse"}, "'reverse'"),
        ({"kind": "skew"}, "'skew'"),
        ({"temperature": 2.0}, "temperature 1"),
        ({"features": FeatureTerm("last")}, "hidden states"),
    ],
)
def test_cache_that_cannot_serve_is_refused(teacher, changes, named):
    cache = SimpleNamespace(temperature=1.0, k=4)
    Lesson([], teacher, Objective(), cache)
    with pytest.raises(RunError, match=named):
        Lesson([], teacher, Objective(**changes), cache)


def test_what_does_not_fit_is_refused(profile, teacher, usual, tmp_path):
    backwards, longest = tiny.traces(12)[::-1], profile.max_length
    sizes = {"k": 4, "max_length": longest}
    cache = make_cache(teacher, backwards, tmp_path, **sizes)
    with pytest.raises(CourseError, match="other training rows"):
        train(profile, teacher, Objective(), cache)
    for pair in (1, 9), (-1, 1):
        with pytest.raises(CourseError, match="has no layer (9|-1)"):
            train(profile, teacher, imitating((pair,), 1.0))
    gemma = replace(teacher, tokenizer=tiny.tokenizer(tiny.STUDENT))
    with pytest.raises(CourseError, match="tokenizers differ"):
        train(profile, gemma, Objective())
    with pytest.raises(RunError, match="objective"):  # not resumed
        train(profile, teacher, Objective(temperature=3.0), run="usual")


def first_loss(*arguments):
    trainer = trainer_of(*arguments)
    batch = next(iter(trainer.get_train_dataloader()))
    return trainer.compute_loss(trainer.model, batch).item()


def test_final_norm_is_never_called(profile, teacher, monkeypatch):
    """Unsloth on a GPU reads that module's weight instead."""
    trainer = trainer_of(profile, teacher, Objective(chunk=7))
    batch = next(iter(trainer.get_train_dataloader()))
    before = trainer.compute_loss(trainer.model, batch).item()
    kind = type(teacher.model.model.norm)  # no hook of it runs
    monkeypatch.setattr(kind, "__call__", kind.forward)
    again = trainer.compute_loss(trainer.model, batch).item()
    assert again == pytest.approx(before, abs=1e-6)


def test_chunked_loss_keeps_what_a_head_does(profile, teacher):
    """A bias, as in the model's own logits; see test_losses_parts.py."""
    altered = load_teacher(PROFILES["mini"], profile.teacher)
    head = altered.model.lm_head
    torch.manual_seed(1)
    head.bias = torch.nn.Parameter(torch.randn(head.out_features) * 3)
    whole = first_loss(profile, altered, Objective())
    chunked = first_loss(profile, altered, Objective(chunk=7))
    assert chunked == pytest.approx(whole, abs=1e-4)
    assert abs(whole - first_loss(profile, teacher, Objective())) > 1e-2


@pytest.mark.parametrize("kind", ["mse", "cosine", "relation"])
def test_feature_loss_falls_and_saves_adapters_alone(profile, teacher, kind):
    done = run_of(profile, teacher, imitating("even", 1.0, kind), epochs=3)
    assert losses(done)[-1] < losses(done)[0]
    final = done.folder / "final"  # the student that is exported
    assert not (final / "projectors.safetensors").exists()
    names = load_file(final / "adapter_model.safetensors")
    assert all("lora" in name for name in names)


def test_weight_zero_is_the_training_without_features(profile, teacher):
    plain = train(profile, teacher, Objective(soft=0.6))
    zero = train(profile, teacher, imitating("last", 0.0, soft=0.6))
    assert plain == pytest.approx(zero, abs=1e-6)


def test_self_as_teacher_costs_nothing(profile):
    """The student's own states, relations: the feature part is 0."""
    whole = replace(profile, load_in_4bit=False)
    student = load_teacher(whole, whole.student)
    first = train(whole, student, imitating("last", 50.0, "relation"))
    plain = train(whole, student, Objective(soft=0.0))
    assert first[0] == pytest.approx(plain[0], abs=1e-3)


def test_killed_run_goes_on_with_its_projectors(profile, teacher, monkeypatch):
    asked = profile, teacher, imitating(((1, 1), (2, 2)), 1.0)
    straight = train(*asked, epochs=2)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        tiny.watch(patch, stop=4)
        train(*asked, run="killed", epochs=2)
    resumed = train(*asked, run="killed", epochs=2)
    assert resumed[-1] == pytest.approx(straight[-1], abs=1e-4)


def test_full_fine_tuning_changes_and_saves_the_whole_model(profile, teacher):
    plain = replace(profile, load_in_4bit=False)
    student = load_teacher(plain, plain.student)
    student.model.train().requires_grad_(True)
    before = student.model.model.layers[0].mlp.up_proj.weight.detach().clone()
    objective = imitating("even", 1.0, "cosine")
    done = run_of(plain, teacher, objective, student=student)
    after = student.model.model.layers[0].mlp.up_proj.weight
    assert not torch.equal(before, after)
    again = load_teacher(plain, str(done.folder / "final"))
    weights = again.model.state_dict()
    for name, weight in student.model.state_dict().items():
        assert torch.equal(weight, weights[name]), name


def test_projectors_are_clipped(profile, teacher):
    objective = imitating("even", 1000.0, "cosine", soft=1.0)
    trainer = trainer_of(profile, teacher, objective)
    norms = []

    def look(*_):
        gradients = [p.grad.norm() for p in trainer.projectors.parameters()]
        norms.append(torch.stack(gradients).norm().item())

    trainer.create_optimizer()
    trainer.optimizer.register_step_pre_hook(look)
    trainer.train()
    assert norms and max(norms) == pytest.approx(1.0, abs=1e-4)
