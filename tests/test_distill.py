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
    FeatureTrainer,
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
from helpers.models import add_lora, load_student, load_teacher
from helpers.profiles import PROFILES
from helpers.sft import RunError, train_student

SMALL = "mini-qwen3-small"
NUMBERS = count()


class FullCache:
    """What the teacher thinks of each row, all of the vocabulary."""

    def __init__(self, teacher, rows) -> None:
        self.k, self.temperature = len(teacher.tokenizer), 1.0
        self.rows = [self.look(teacher.model, row) for row in rows]

    def look(self, model, row):
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([row["input_ids"]])).logits
        trained = sum(label != -100 for label in row["labels"])
        logits = logits[0, -trained - 1 : -1, : self.k]
        values = logits.log_softmax(-1)
        return torch.arange(self.k).expand(values.shape), values

    def row(self, number):
        return self.rows[number]

    def check_rows(self, rows):
        assert len(rows) == len(self.rows)


@pytest.fixture(scope="module")
def teacher():
    return tiny.teacher()


@pytest.fixture(scope="module")
def profile(tmp_path_factory):
    return tiny.pair(tmp_path_factory.mktemp("logit"), learning_rate=1e-3)


def run_of(profile, teacher, objective, cache=None, run=None, **options):
    """A short run on twelve traces."""
    return distill_student(
        Lesson(tiny.traces(12), teacher, objective, cache),
        profile=profile,
        run=run or f"run{next(NUMBERS)}",
        progress=False,
        **{"epochs": 1} | options,
    )


def losses(done):
    return [entry["loss"] for entry in done.log]


def train(*arguments, **options):
    """The losses of a short run."""
    return losses(run_of(*arguments, **options))


@pytest.fixture(scope="module")
def usual(profile, teacher):
    """The losses of the default objective; the teacher stays as it was."""
    before = [p.detach().clone() for p in teacher.model.parameters()]
    told = train(profile, teacher, Objective(), run="usual")
    after = list(teacher.model.parameters())
    assert all(map(torch.equal, before, after))
    assert all(p.grad is None for p in after)
    return told


def make_rows(teacher, traces=12, max_length=512):
    own = tiny.tokenizer(SMALL)
    pair = own, teacher.tokenizer
    return pair_rows(tiny.traces(traces), *pair, max_length=max_length)


def make_cache(teacher, traces, folder, **options):
    own = tiny.tokenizer(SMALL)
    return write_cache(traces, teacher, folder, tokenizer=own, **options)


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
        (Objective(0.0, features=FeatureTerm("even", 1.0, "cosine")), 1e-4),
    ],
)
def test_accumulated_steps_equal_one_large_batch(
    profile, teacher, objective, close
):
    whole = replace(profile, batch_size=4, gradient_accumulation=1)
    parts = replace(profile, batch_size=1, gradient_accumulation=4)
    one = train(whole, teacher, objective)
    four = train(parts, teacher, objective)
    assert one == pytest.approx(four, abs=close)
    assert one[-1] < one[0]


def test_chunked_steps_equal_whole_ones(profile, teacher, usual):
    asked_by_profile = replace(profile, kd_chunk=7)
    assert train(asked_by_profile, teacher, Objective()) == (
        pytest.approx(usual, abs=1e-5)
    )
    warm = Objective(temperature=2.0)
    whole = train(profile, teacher, warm)
    chunked = train(profile, teacher, replace(warm, chunk=7))
    assert whole == pytest.approx(chunked, abs=1e-5)


def test_chunked_steps_in_bfloat16(profile, teacher):
    """Autocast returns float32 states, the head stays in bfloat16."""
    half = replace(profile, dtype="bfloat16")
    whole = train(half, teacher, Objective())
    chunked = train(half, teacher, Objective(chunk=7))
    assert whole == pytest.approx(chunked, rel=0.02)


@pytest.mark.parametrize(
    ("objective", "chunk"),
    [
        (Objective(), 64),
        (Objective(chunk=7), 7),
        (Objective(soft=0.5), None),
        (Objective(features=FeatureTerm("even", 0.1, "cosine")), None),
    ],
)
def test_chunked_only_where_it_is_possible(objective, chunk):
    assert objective.chunked(64).chunk == chunk


def test_full_cache_equals_the_teacher_in_memory(profile, teacher):
    cache = FullCache(teacher, make_rows(teacher))
    absent = replace(teacher, model=None)
    online = train(profile, teacher, Objective(soft=0.5))
    cached = train(profile, absent, Objective(soft=0.5), cache)
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


def test_collator_keeps_padding_out(teacher):
    rows = list(make_rows(teacher))
    batch = PairCollator(0)(rows)
    lengths = torch.tensor([len(row["input_ids"]) for row in rows])
    assert torch.equal(batch["attention_mask"].sum(1), lengths)
    places = torch.arange(batch["soft_mask"].shape[1])
    padded = places >= lengths[:, None] - 1
    assert not batch["soft_mask"][padded].any()
    assert (batch["labels"][:, 1:][padded] == -100).all()


def test_padded_logits_do_not_count(profile, teacher, usual):
    """Rows of the vocabulary without a token change nothing."""
    altered = load_teacher(PROFILES["mini"], profile.teacher)
    weight = altered.model.lm_head.weight.detach().clone()
    weight[len(teacher.tokenizer) :] = 9.0
    altered.model.lm_head.weight = torch.nn.Parameter(weight)
    changed = train(profile, altered, Objective())
    assert usual == pytest.approx(changed, abs=1e-6)


def test_long_rows_are_dropped_alike_with_a_cache(
    profile, teacher, tmp_path, capsys
):
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


# --- what is refused ---


@pytest.mark.parametrize(
    "wrong",
    [
        {"soft": 1.2},
        {"soft": -0.1},
        {"soft": 0.5, "chunk": 8},
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
def test_cache_that_cannot_serve_the_objective_is_refused(
    teacher, changes, named
):
    cache = SimpleNamespace(temperature=1.0, k=4)
    Lesson([], teacher, Objective(), cache)
    with pytest.raises(RunError, match=named):
        Lesson([], teacher, Objective(**changes), cache)


def test_cache_of_other_rows_is_refused(profile, teacher, tmp_path):
    backwards = tiny.traces(12)[::-1]
    sizes = {"k": 4, "max_length": profile.max_length}
    cache = make_cache(teacher, backwards, tmp_path, **sizes)
    with pytest.raises(CourseError, match="rows"):
        train(profile, teacher, Objective(), cache)


@pytest.mark.parametrize("pair", [(1, 9), (-1, 1)])
def test_layers_that_are_not_there_are_refused(profile, teacher, pair):
    objective = Objective(features=FeatureTerm((pair,)))
    with pytest.raises(CourseError, match="has no layer (9|-1)"):
        train(profile, teacher, objective)


def test_other_tokenizer_is_refused(profile, teacher):
    gemma = replace(teacher, tokenizer=tiny.tokenizer(tiny.STUDENT))
    with pytest.raises(CourseError, match="tokenizers differ"):
        train(profile, gemma, Objective())


def test_other_objective_is_not_resumed(profile, teacher, usual):
    with pytest.raises(RunError, match="objective"):
        train(profile, teacher, Objective(temperature=3.0), run="usual")


# --- the trainer ---


def trainer_of(profile, teacher, objective):
    """Of an untrained student, on four traces."""
    student = add_lora(load_student(profile), rank=2)
    options = {"profile": profile, "objective": objective, "epochs": 1}
    return pair_trainer(tiny.traces(4), student, teacher, **options)


def first_loss(*arguments):
    trainer = trainer_of(*arguments)
    batch = next(iter(trainer.get_train_dataloader()))
    return trainer.compute_loss(trainer.model, batch).item()


def test_chunked_loss_never_calls_the_final_norm(
    profile, teacher, monkeypatch
):
    """Unsloth on a GPU reads that module's weight instead."""
    from transformers.models.qwen3 import modeling_qwen3

    before = first_loss(profile, teacher, Objective(chunk=7))
    call = torch.nn.Module.__call__

    def bypass(self, *args, **options):
        if isinstance(self, modeling_qwen3.Qwen3RMSNorm):
            return self.forward(*args, **options)  # no hook of it runs
        return call(self, *args, **options)

    monkeypatch.setattr(modeling_qwen3.Qwen3RMSNorm, "__call__", bypass)
    again = first_loss(profile, teacher, Objective(chunk=7))
    assert again == pytest.approx(before, abs=1e-6)


@pytest.mark.parametrize("field", ["bias", "softcap"])
def test_chunked_loss_keeps_what_a_head_does(profile, teacher, field):
    """A bias, or a cap of the logits: as in the model's own logits."""
    altered = load_teacher(PROFILES["mini"], profile.teacher)
    head = altered.model.lm_head
    torch.manual_seed(1)
    if field == "softcap":
        altered.model.config.final_logit_softcapping = 3.0
        forward = altered.model.forward

        def capped(*args, **options):
            out = forward(*args, **options)
            out.logits = 3.0 * torch.tanh(out.logits / 3.0)
            return out

        altered.model.forward = capped
    else:
        head.bias = torch.nn.Parameter(torch.randn(head.out_features) * 3)
    whole = first_loss(profile, altered, Objective())
    chunked = first_loss(profile, altered, Objective(chunk=7))
    plain = first_loss(profile, teacher, Objective())
    assert chunked == pytest.approx(whole, abs=1e-4)
    assert abs(whole - plain) > 1e-2


# --- hidden states ---


def imitating(layers, weight, kind="mse", *, soft=0.0, **options):
    """An objective of text, or logits, and hidden states."""
    term = FeatureTerm(layers, weight, kind)
    return Objective(soft=soft, features=term, **options)


@pytest.mark.parametrize("kind", ["mse", "cosine", "relation"])
def test_feature_loss_falls_and_teacher_never_changes(profile, teacher, kind):
    before = [p.detach().clone() for p in teacher.model.parameters()]
    done = run_of(profile, teacher, imitating("even", 1.0, kind), epochs=3)
    assert losses(done)[-1] < losses(done)[0]
    assert all(map(torch.equal, before, teacher.model.parameters()))
    assert all(p.grad is None for p in teacher.model.parameters())
    final = done.folder / "final"  # the student that is exported
    assert not (final / "projectors.safetensors").exists()
    saved = load_file(final / "adapter_model.safetensors")
    assert all("lora" in name for name in saved)


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


def test_chunked_objective_takes_features_too(profile, teacher):
    whole = imitating("even", 0.5, "relation", soft=1.0)
    one, parts = (
        train(profile, teacher, objective)
        for objective in (whole, replace(whole, chunk=7))
    )
    assert one == pytest.approx(parts, abs=1e-5)


def test_killed_run_goes_on_with_its_projectors(profile, teacher, monkeypatch):
    asked = profile, teacher, imitating(((1, 1), (2, 2)), 1.0)
    straight = train(*asked, epochs=2)
    usual = FeatureTrainer.more_loss

    def dies(self, *args):
        if self.state.epoch and self.state.epoch >= 1.2:
            raise KeyboardInterrupt
        return usual(self, *args)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(FeatureTrainer, "more_loss", dies)
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
    ids = torch.tensor([[5, 6, 7, 8, 9], [9, 8, 7, 6, 5]])
    with torch.no_grad():
        ours = student.model.eval()(input_ids=ids).logits
        theirs = again.model(input_ids=ids).logits
    assert torch.equal(ours, theirs)


def test_projectors_are_clipped(profile, teacher):
    term = FeatureTerm("even", 1000.0, "cosine")
    trainer = trainer_of(profile, teacher, Objective(features=term))
    norms = []

    def look(*_):
        gradients = [p.grad.norm() for p in trainer.projectors.parameters()]
        norms.append(torch.stack(gradients).norm().item())

    trainer.create_optimizer()
    trainer.optimizer.register_step_pre_hook(look)
    trainer.train()
    assert norms and max(norms) == pytest.approx(1.0, abs=1e-4)
