"""The experiment of notebook 11, on the mini lab's Gemma and short texts."""

import json

import numpy as np
import pytest
import tiny  # noqa: F401  Unsloth before transformers
import torch
from torch.nn import functional

from helpers import CourseError
from helpers.profiles import DATA, MODELS
from helpers.rebuild import half_results, half_runs
from helpers.rebuild.calibration import calibration_error, tenths
from helpers.rebuild.half_anatomy import anatomy
from helpers.rebuild.half_gemma import (
    LESSONS,
    ask,
    held_out,
    lesson_loss,
    listen,
    make_lab,
    repair,
    stream,
)
from helpers.rebuild.pruning import prune_layers

SAMPLE = str(DATA / "gsm8k" / "sample.jsonl")


@pytest.fixture(scope="module")
def lab():
    return make_lab(MODELS / "mini-gemma3", SAMPLE)


@pytest.fixture(scope="module")
def batch(lab):
    return next(stream(lab, 1, seed=5))[:2, :48]


@pytest.fixture
def folder(tmp_path, monkeypatch, lab):
    """A place for results, and a laboratory that is there already."""
    monkeypatch.setattr(half_runs, "RESULTS", tmp_path)
    monkeypatch.setattr(half_runs, "fetch_gemma", lambda: None)
    monkeypatch.setattr(half_runs, "make_lab", lambda *_: lab)
    monkeypatch.setenv("DISTILL_PROBLEMS", SAMPLE)
    return tmp_path


def test_texts_are_disjoint_and_each_seed_has_its_own_of_one_size(lab):
    for kind in ("gsm8k", "reference"):
        splits = [set(lab.texts[split][kind]) for split in lab.texts]
        joined = "\n".join(lab.texts["train"][kind])
        assert all(splits) and not splits[0] & splits[1] & splits[2]
        assert not any(text in joined for text in lab.texts["test"][kind])
    first, again, other = (list(stream(lab, 3, seed)) for seed in (7, 7, 8))
    assert torch.equal(torch.cat(first), torch.cat(again))
    assert not torch.equal(torch.cat(first), torch.cat(other))
    assert {tuple(ids.shape) for ids in first + other} == {(4, 256)}


@pytest.mark.parametrize(
    "name", ["text", "logits", "states", "text_states", "logits_states"]
)
def test_lesson_loss_by_hand(lab, batch, name):
    half = prune_layers(lab.teacher, lab.keep)
    told, taught = (ask(m, batch, states=True) for m in (half, lab.teacher))
    p, q = (x.logits.float().log_softmax(-1) for x in (taught, told))
    parts = {
        "text": -q[:, :-1].gather(-1, batch[:, 1:, None]).mean(),
        "logits": (p.exp() * (p - q)).sum(-1).mean(),
        "states": 0,
    }
    for place, block in enumerate(lab.keep, start=1):
        pair = told.hidden_states[place], taught.hidden_states[block + 1]
        cosine = functional.cosine_similarity(*pair, dim=-1)
        parts["states"] += 1 - cosine.mean()
    wanted = sum(parts[part] for part in name.split("_"))
    heard = listen(LESSONS[name], lab.teacher, batch)
    loss = lesson_loss(LESSONS[name], half, heard, batch, lab.keep)
    torch.testing.assert_close(loss, wanted, rtol=0.02, atol=1e-3)


@pytest.mark.parametrize("name", sorted(LESSONS))
def test_every_lesson_falls_and_moves_the_half_alone(lab, name):
    lesson, half = LESSONS[name], prune_layers(lab.teacher, lab.keep)
    ids = [part[:2, :32] for part in stream(lab, 1, seed=3)]
    frozen = [weight.clone() for weight in lab.teacher.parameters()]

    def loss():
        heard = listen(lesson, lab.teacher, ids[0])
        return lesson_loss(lesson, half, heard, ids[0], lab.keep).item()

    before = loss()
    repair(half, lesson, ids * 6, teacher=lab.teacher, keep=lab.keep,
           rate=1e-3)  # fmt: skip
    assert loss() < 0.95 * before
    assert all(map(torch.equal, frozen, lab.teacher.parameters()))


def test_repair_stops_at_a_loss_that_is_no_number(lab, batch):
    half = prune_layers(lab.teacher, lab.keep)
    half.get_input_embeddings().weight.data[0] = float("nan")
    with pytest.raises(CourseError, match="the loss is nan at step 0"):
        repair(half, LESSONS["text"], [batch * 0], teacher=None, keep=[],
               rate=1.0)  # fmt: skip


def test_score_of_the_teacher_against_itself_and_its_loss(lab):
    texts = held_out(lab.tokenizer, lab.texts["test"], share=8)
    judge = list(half_runs.opinions(lab.teacher, texts))
    told = half_runs.score(lab.teacher, judge, texts)
    assert half_runs.mean(told, "kl") == pytest.approx(0, abs=1e-3)
    assert half_runs.mean(told, "agree") == 1.0
    logits = [ask(lab.teacher, ids[None]).logits[0, :-1] for _, ids in texts]
    every, targets = torch.cat(logits).float(), [ids[1:] for _, ids in texts]
    tokens = len(every)
    wanted = functional.cross_entropy(every, torch.cat(targets)).item()
    assert half_runs.mean(told, "nll") == pytest.approx(wanted, rel=0.01)
    assert np.sum(told["bins"], axis=0)[0] == tokens


def test_in_nf4_rounds_the_linear_weights_alone(lab):
    rounded = half_runs.in_nf4(lab.teacher)
    new = dict(rounded.named_parameters())
    for name, old in lab.teacher.named_parameters():
        same = torch.equal(old, new[name])
        assert same != name.endswith("_proj.weight"), name


def test_anatomy_speaks_of_every_block(lab):
    told = anatomy(lab)
    assert len(told["influence"]) == 4 and len(told["keep"]) == 2
    assert np.shape(told["cka"]) == (3, 5)
    assert {len(points) for points in told["rules"].values()} == {2}
    assert len(told["samples"]) == len(told["teacher_samples"]) == 3


def test_main_wants_gsm8k_and_a_tuned_rate(folder, monkeypatch):
    with pytest.raises(CourseError, match="no rate was tuned for nf4_logits"):
        half_runs.main(["--lesson", "nf4_logits_states"])
    monkeypatch.setenv("DISTILL_PROBLEMS", "mini")
    with pytest.raises(CourseError, match="DISTILL_PROBLEMS to openai/gsm8k"):
        half_runs.main([])


@pytest.mark.slow
def test_main_writes_what_is_missing_and_tables_read_it(folder, monkeypatch):
    monkeypatch.setattr(half_runs, "RATES", (1e-3,))
    lessons = ["--lesson", "text", "logits", "untrained"]
    half_runs.main(["--tune", "--steps", "1", *lessons])
    assert len(list((folder / "tuning").iterdir())) == 2
    for seed in ("7", "8"):
        half_runs.main(["--steps", "2", "--seed", seed, *lessons])
    files = sorted(folder.glob("*.json"))
    times = [path.stat().st_mtime_ns for path in files]
    half_runs.main(["--steps", "2", "--seed", "7", *lessons])
    assert times == [path.stat().st_mtime_ns for path in files]
    halves = half_results.read_halves(folder)
    assert [(h.lesson, len(h.runs)) for h in halves] == [
        ("untrained", 2), ("text", 2), ("logits", 2),
    ]  # fmt: skip
    table = half_results.halves_markdown(halves)
    assert "| logits | 2,048 | 2 |" in table
    tests = half_results.contrasts(halves, 2)
    words = list(half_results.YARDSTICKS.values())
    assert [test.where for test in tests] == words
    for test, score in zip(tests, ("nll", "kl"), strict=True):
        gap = halves[2].mean(score) - halves[1].mean(score)
        assert test.gain == pytest.approx(gap)
        assert test.low <= test.gain <= test.high and test.unit == "nats"


def made_up(lesson, seed, nll, steps=32):
    """A run whose two texts have losses per token `nll`."""
    tokens = [10, 30]
    sums = [value * n for value, n in zip(nll, tokens, strict=True)]
    part = {"tokens": tokens, "nll": sums, "kl": sums, "agree": [5, 15]}
    return {
        "lesson": lesson, "seed": seed, "steps": steps, "seconds": 1.0,
        "curve": [], "texts": {"gsm8k": part}, "bins": [[40, 20.0, 30]],
    }  # fmt: skip


def test_half_is_a_mean_per_token_and_calibrated_by_bins():
    half = half_results.Half("text", 32, (made_up("text", 7, [1.0, 3.0]),))
    assert half.mean("nll") == pytest.approx((10 + 90) / 40)
    assert half.mean("agree") == 0.5
    assert half.ece == pytest.approx(0.25)
    even = half_results.Half("text", 32, (made_up("text", 7, [2.0, 2.0]),))
    assert even.values("nll") == pytest.approx(np.full((1, 2), 2.0))


def test_calibration_error_by_hand():
    sure = torch.tensor([0.05, 0.62, 0.68, 1.0])
    bins = tenths(sure, torch.tensor([False, True, False, True]))
    assert bins[:, [0, 6, 9]].tolist() == [
        [1, 2, 1], pytest.approx([0.05, 1.3, 1.0]), [0, 1, 1],
    ]  # fmt: skip
    assert calibration_error(bins) == pytest.approx((0.05 + 0.3) / 4)


def test_contrasts_pair_the_lessons_by_seed(tmp_path):
    for seed, luck in ((7, 0.0), (8, 0.02), (9, 0.01)):
        for lesson, gain in (("text", 0), ("logits", -1)):
            row = made_up(lesson, seed, [2 + gain + luck, 2.5 + gain])
            path = tmp_path / f"{lesson}-32-seed{seed}.json"
            path.write_text(json.dumps(row))
    (tmp_path / "logits-32-seed9.json").unlink()
    nll, kl = half_results.contrasts(half_results.read_halves(tmp_path), 32)
    assert nll.gain == pytest.approx(-1.0) == kl.gain
    assert (nll.first, nll.second) == ("text", "logits")
