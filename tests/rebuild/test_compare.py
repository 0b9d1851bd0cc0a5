"""Each signal asks for what its name says; a run is resumable and scored."""

import argparse
import json
from copy import deepcopy
from dataclasses import replace
from types import SimpleNamespace

import pytest
import tiny
import torch
from torch.nn.functional import cross_entropy

from helpers import CourseError
from helpers.distill import pair_profile
from helpers.evaluate import evaluate
from helpers.losses import kd_loss
from helpers.models import load_teacher
from helpers.problems import load_problems
from helpers.profiles import PROFILES
from helpers.rebuild import compare, lessons
from helpers.rebuild.decoding import decode, quick_evaluate
from helpers.rebuild.signals import SIGNALS, pull, signal_loss, target
from helpers.results import read_results

MINI = pair_profile(PROFILES["mini"])
TEXT = [name for name, signal in SIGNALS.items() if not signal.logits]


@pytest.fixture
def batch():
    """Student's and teacher's logits, the text's tokens, the soft places."""
    generator = torch.Generator().manual_seed(3)
    student, teacher = 3 * torch.randn(2, 9, 90, generator=generator)
    tokens = torch.randint(90, (9,), generator=generator)
    return student.requires_grad_(), teacher, tokens, torch.arange(9) > 1


def loss_of(name, batch, smoothing=0.0):
    student, teacher, tokens, soft = batch
    signal, taught = SIGNALS[name], None
    if signal.logits:
        generator = torch.Generator().manual_seed(1)
        taught = target(signal, teacher[soft], generator)
    return signal_loss(signal, student, tokens, soft, taught, smoothing)


def by_hand(batch, **options):
    """kd_loss where the teacher spoke, cross-entropy before that."""
    student, teacher, tokens, soft = batch
    hard = cross_entropy(student[~soft], tokens[~soft], reduction="sum")
    ones = torch.ones(1, int(soft.sum()))
    loss = kd_loss(student[None, soft], teacher[None, soft], ones, **options)
    return (hard + soft.sum() * loss) / len(tokens)


@pytest.mark.parametrize("name", TEXT)
def test_signals_of_text_are_cross_entropy(name, batch):
    student, _, tokens, soft = batch
    t = 2 if name == "hard_t2" else 1
    warm = t**2 * cross_entropy(student[soft] / t, tokens[soft])
    hard = cross_entropy(student[~soft], tokens[~soft])
    wanted = (warm * soft.sum() + hard * (~soft).sum()) / len(tokens)
    assert loss_of(name, batch).isclose(wanted)


def test_smoothing_spares_what_the_template_wrote(batch):
    student, _, tokens, soft = batch
    smooth = cross_entropy(student[soft], tokens[soft], label_smoothing=0.1)
    hard = cross_entropy(student[~soft], tokens[~soft])
    both = (soft.sum() * smooth + (~soft).sum() * hard) / len(tokens)
    assert loss_of("smoothed", batch, smoothing=0.1).isclose(both)


ARMS = {"logits": {}, "logits_t2": {"temperature": 2.0}}
ARMS |= {"logits_t4": {"temperature": 4.0}}
ARMS |= {kind: {"kind": kind} for kind in ("reverse", "jsd", "skew")}


@pytest.mark.parametrize(("name", "options"), ARMS.items())
def test_signals_of_logits_are_kd_loss(name, options, batch):
    assert loss_of(name, batch).isclose(by_hand(batch, **options), rtol=1e-4)


def test_permuted_keeps_first_choice_and_masses_and_moves_the_rest(batch):
    teacher, generator = batch[1], torch.Generator().manual_seed(1)
    plain, moved = (
        target(SIGNALS[name], teacher, generator).exp()
        for name in ("logits_t2", "permuted_t2")
    )
    assert torch.equal(plain.argmax(-1), moved.argmax(-1))
    ordered = [x.sort(dim=-1).values for x in (plain, moved)]
    assert torch.allclose(*ordered)
    assert (plain != moved).float().mean() > 0.9


def test_caches_bound_the_full_loss_from_below_and_draws_are_a_share(batch):
    full = loss_of("logits", batch)
    assert loss_of("top16", batch) < full
    assert loss_of("top16_t2", batch) < loss_of("top64_t2", batch)
    generator = torch.Generator().manual_seed(1)
    drawn = target(SIGNALS["drawn64"], batch[1], generator).exp()
    assert torch.allclose(drawn.sum(-1), torch.ones(9))
    assert ((64 * drawn).round() / 64 - drawn).abs().max() < 1e-5


def test_pull_matches_the_dose_at_every_step():
    weight = torch.tensor([1.0, 2.0], requires_grad=True)
    other = torch.tensor([1.0], requires_grad=True)
    main, more = weight[0] * 5, weight[1] * other[0]
    pull(main, more, [weight], [other], dose=0.3)
    assert torch.allclose(weight.grad, torch.tensor([5.0, 1.5]))
    assert torch.allclose(other.grad, torch.tensor([2.0]))


def test_every_signal_reads_the_same_questions():
    texts, logits, others, gold = (
        lessons.rows_of(SIGNALS[name], MINI, 64, 8)
        for name in ("text", "logits", "placebo", "gold")
    )
    assert list(logits) == list(texts)
    for text, other in zip(texts, others, strict=True):
        assert text["question"] == other["question"]
        assert text["qwen3_answer"] != other["qwen3_answer"]
    assert len(gold) == 64


def test_gold_text_is_read_without_the_teacher():
    signal, student = SIGNALS["gold"], load_teacher(MINI, MINI.student)
    rows = lessons.rows_of(signal, MINI, 4, 8)
    heard = lessons.listen(rows, signal, student, MINI, 8)
    assert not any(row["soft"].any() for row in heard)
    text = student.tokenizer.decode(heard[0]["ids"])
    assert rows[0]["qwen3_answer"] in text
    options = {"setting": lessons.Setting(1e-3, 16), "seed": 8}
    lessons.learn(student, heard, signal, profile=MINI, **options)


def test_batches_read_every_row_once_before_any_twice():
    rows = list(range(40))
    read = sum(lessons.batches(rows, 80, seed=3), [])
    assert sorted(read[:40]) == sorted(read[40:]) == rows
    assert read[:40] != read[40:]


def test_own_steps_are_the_share_by_turns_or_last():
    turns, last, all_own = (
        [lessons.reads_own(SIGNALS[arm], step, 5) for step in range(5)]
        for arm in ("mixed", "on_policy_text", "on_policy")
    )
    assert turns == [False, True, False, True, False]
    assert last == [False, False, False, True, True]
    assert all(all_own)
    assert not lessons.reads_own(SIGNALS["text"], 4, 5)


@pytest.fixture
def taught(tmp_path):
    """A tiny student, its profile, what it reads, and how it learns that."""
    profile = tiny.pair(tmp_path)
    student = tiny.student(profile)

    def listen(arm):
        signal = SIGNALS[arm]
        return lessons.listen(tiny.traces(3), signal, student, profile, 7)

    def learn(arm, steps):
        setting = lessons.Setting(1e-3, steps * lessons.BATCH)
        options = {"profile": profile, "setting": setting, "seed": 7}
        lessons.learn(student, listen(arm), SIGNALS[arm], **options)

    return SimpleNamespace(**locals())


@pytest.mark.parametrize(
    ("arm", "times"), [("reverse", 0), ("mixed", 1), ("on_policy", 2)]
)
def test_own_text_at_own_steps_alone(arm, times, taught, monkeypatch):
    asked, usual = [], lessons.own_text
    monkeypatch.setattr(
        lessons, "own_text", lambda *a: asked.append(0) or usual(*a)
    )
    taught.learn(arm, steps=2)
    assert len(asked) == times


def test_the_first_half_of_a_warm_arm_is_text(taught, monkeypatch):
    told, usual = [], lessons.signal_loss

    def look(signal, *arguments):
        told.append((signal.name, arguments[3] is None))
        return usual(signal, *arguments)

    monkeypatch.setattr(lessons, "signal_loss", look)
    taught.learn("jsd_warm", steps=4)
    name = SIGNALS["jsd_warm"].name
    assert told == 2 * [("teacher text", True)] + 2 * [(name, False)]


def test_own_text_keeps_the_question_and_is_heard_by_the_teacher(taught):
    student, profile = taught.student, taught.profile
    rows = taught.listen("on_policy")
    assert not any(row["taught"] is not None for row in rows)
    before = deepcopy(student.model.state_dict())
    torch.manual_seed(0)
    texts = lessons.own_text(rows, student, profile)
    torch.testing.assert_close(
        student.model.state_dict(), before, rtol=0, atol=0
    )
    for row, text in zip(rows, texts, strict=True):
        start = row["row"]["soft_start"]
        assert text["ids"][:start].equal(row["ids"][:start])
        wrote = len(text["ids"]) - start
        assert 0 < wrote <= profile.max_new_tokens
        assert text["soft"].sum() == wrote
        ids = text["ids"][None]
        logits = lessons.teacher_of(profile).model(ids).logits
        wanted = logits[0, start - 1 : -1, : len(student.tokenizer)]
        assert text["taught"].allclose(wanted.log_softmax(-1), atol=1e-5)


def test_equal_seconds_are_fewer_rows_at_the_same_rates():
    brief, whole = map(compare.tries_of, ("on_policy_brief", "on_policy"))
    assert [one.rate for one in brief] == [one.rate for one in whole]
    assert {one.reads for one in whole} == {2000}
    assert {one.reads for one in brief} == {571}  # a row costs 3.5


@pytest.mark.slow
def test_drawn_answers_follow_the_students_odds():
    """First tokens of many draws at T = 1, against the probabilities."""
    small = load_teacher(MINI, MINI.student)
    prompt = [5, 9, 23, 40]
    sampling = replace(MINI.greedy, temperature=1.0, max_new_tokens=1)
    torch.manual_seed(1)
    asked = small.model, small.tokenizer, [prompt] * 4000
    drawn = torch.tensor(decode(*asked, sampling=sampling))[:, 0]
    size = len(small.tokenizer)
    with torch.no_grad():
        logits = small.model(torch.tensor([prompt])).logits[0, -1, :size]
    odds, counts = logits.softmax(-1), drawn.bincount(minlength=size)
    spread = (odds * (1 - odds) / 4000).sqrt()
    assert ((counts / 4000 - odds).abs() < 5 * spread + 1e-3).all()


@pytest.mark.slow
def test_quick_answers_are_the_slow_ones():
    small = load_teacher(MINI, MINI.student)
    asked = load_problems("mini", "validation", limit=24)
    profile = replace(MINI, evaluation_batch=16)
    quick = quick_evaluate(small, asked, profile)
    slow = evaluate(small, asked, profile=profile)
    assert quick.completions == slow.completions


@pytest.mark.parametrize(
    "arm",
    ["text", "smoothed", "top16", "states", "logits_relations", "on_policy"],
)
def test_a_run_is_tuned_and_not_made_twice(arm, tmp_path, monkeypatch):
    """With tiny models, four rows and four problems."""
    profile = replace(tiny.pair(tmp_path), name="mini")
    few = lessons.Setting(1e-3, 16)
    for name, value in {
        "KD_RESULTS": tmp_path,
        "TRIES": [few],
        "SMOOTHED": [replace(few, smoothing=0.1)],
        "GENTLE": [few],
        "rows_of": lambda *_: tiny.traces(4),
        "load_problems": lambda *_, **__: tiny.problems(4),
        "judged_rows": lambda _: [],
        "judged": lambda *_: {"kl": 0.1},
    }.items():
        monkeypatch.setattr(compare, name, value)
    with pytest.raises(CourseError, match="compare --tune"):
        compare.measure(arm, profile, 64, 7)
    name = SIGNALS[arm].like or arm
    compare.tune(name, profile, 64)
    tried = json.loads((tmp_path / f"tuning/0064-{name}.json").read_text())
    assert len(tried["tries"]) == 1
    compare.measure(arm, profile, 64, 7)
    (result,) = read_results(tmp_path / "budget_0064")
    assert (result.arm, result.n, result.judged["kl"]) == (arm, 4, 0.1)
    assert "rate 0.001, 16 read" in result.notes
    asked = {"arms": [arm], "budgets": [64], "seeds": [7, 8], "tune": False}
    jobs = compare.open_jobs(argparse.Namespace(**asked))
    assert list(jobs) == [(arm, 64, 8)]


def test_graders_differ_where_an_answer_is_not_in_its_place():
    problems = [{"answer": "#### 62"}] * 4 + [{"answer": "#### no solution"}]
    texts = ["<think>\n4*18=72\n</think>\n\nThe answer is 62.", "62"]
    texts += ["62 crayons of 72", "<think>\n72-10=62", "There is no solution."]
    right = {"strict": 2, "last number": 4, "any number": 5}
    assert compare.graded(texts, problems) == right
