"""The student's own text: whose tokens, which loss, and after a kill."""

from dataclasses import replace
from functools import partial

import pytest
import tiny
import torch

from helpers.distill import distill_student
from helpers.losses import kd_loss
from helpers.on_policy import REVERSE, OnPolicyLesson, own_rows
from helpers.sft import RunError


@pytest.fixture
def profile(tmp_path):
    return tiny.pair(tmp_path)


def trainer_of(profile, **options):
    lesson = OnPolicyLesson(tiny.traces(8), tiny.teacher(), REVERSE, **options)
    student = tiny.student(profile)
    return lesson.trainer(student, profile=profile, progress=False)


def steps_of(trainer):
    """What each step of a training reads, as the trainer gives it."""
    read, plain = [], trainer.compute_loss

    def look(model, inputs, *rest, **options):
        read.append(inputs)
        return plain(model, inputs, *rest, **options)

    trainer.compute_loss = look
    trainer.train()
    return read


def test_own_rows_keep_the_prompt_and_learn_the_answer(profile):
    trainer = trainer_of(profile)
    rows = list(trainer.train_dataset)[:3]
    batch = trainer.data_collator(rows)
    student = tiny.teacher()  # any model with this tokenizer
    new = own_rows(batch, student.model, student.tokenizer, profile.greedy)
    for old, row in zip(rows, new, strict=True):
        start = old["soft_start"]
        assert row["soft_start"] == start
        assert row["input_ids"][:start] == old["input_ids"][:start]
        assert row["labels"][:start] == old["labels"][:start]
        answer = row["input_ids"][start:]
        assert 0 < len(answer) <= profile.max_new_tokens
        assert row["labels"][start:] == answer
        asked = torch.tensor([row["input_ids"][:start]])
        first = student.model(asked).logits[0, -1].argmax().item()
        assert answer[0] == first  # greedy, so it can be foretold


def test_own_rows_leave_the_model_as_it_was(profile):
    """As Unsloth on a GPU does it: writing ends gradient checkpointing."""
    trainer = trainer_of(profile)
    batch = trainer.data_collator(list(trainer.train_dataset)[:2])
    model = tiny.student(profile).model.train()
    model.gradient_checkpointing_enable()
    before = [getattr(m, "gradient_checkpointing", 0) for m in model.modules()]
    assert any(before)

    def write(model, _, prompts, **__):
        assert not model.training
        for module in model.modules():
            module.gradient_checkpointing = False
        return [[5] for _ in prompts]

    own_rows(batch, model, None, None, write)
    assert model.training
    after = [getattr(m, "gradient_checkpointing", 0) for m in model.modules()]
    assert after == before


def test_own_text_is_no_longer_than_a_row_may_be(profile):
    """Unsloth on a GPU cuts longer ones, and the masks no longer fit."""
    long = replace(profile, max_new_tokens=10_000)
    trainer = trainer_of(long)
    longest = max(trainer.train_dataset["soft_start"])
    room = profile.max_length - longest
    assert trainer.sampling.max_new_tokens == room


def test_share_decides_how_many_steps_read_own_text(profile):
    traces = trainer_of(profile, share=0.0)
    whole = {tuple(row["input_ids"]) for row in traces.train_dataset}
    for share, expected in ((0.0, 0), (1.0, 4)):
        own = 0
        for batch in steps_of(trainer_of(profile, share=share)):
            mask = batch["attention_mask"].bool()
            pairs = zip(batch["input_ids"], mask, strict=True)
            rows = [tuple(ids[real].tolist()) for ids, real in pairs]
            own += not whole.issuperset(rows)
        assert own == expected


def test_loss_is_reverse_kl_on_the_students_tokens(profile):
    """And hard labels where the template speaks, per trained token."""
    trainer = trainer_of(profile)
    teacher = tiny.teacher()
    batch = trainer.data_collator(list(trainer.train_dataset)[:4])
    batch = trainer.own(batch)
    with torch.no_grad():
        seen = {k: batch[k] for k in ("input_ids", "attention_mask")}
        loss = trainer.compute_loss(trainer.model, batch)
        q = trainer.model(**seen).logits[:, :-1]
        p = teacher.model(**seen).logits[:, :-1]
    size, labels = trainer.vocabulary, batch["labels"][:, 1:]
    mask, soft = labels != -100, batch["soft_mask"]
    hard = torch.nn.functional.cross_entropy(
        q[mask & ~soft], labels[mask & ~soft], reduction="sum"
    )
    ours = kd_loss(q[..., :size], p[..., :size], soft, kind="reverse")
    expected = (hard + ours * soft.sum()) / mask.sum()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)


def test_killed_run_learns_what_a_whole_one_does(profile, monkeypatch):
    """Half of the steps on own text, killed after the first epoch."""
    lesson = OnPolicyLesson(tiny.traces(8), tiny.teacher(), REVERSE, share=0.5)

    def train(run):
        options = {"student": tiny.student(profile), "progress": False}
        done = distill_student(lesson, profile=profile, run=run, **options)
        return done.log[-1]["loss"]

    straight = train("straight")
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        tiny.watch(patch, stop=2)  # two steps are an epoch
        train("killed")
    begun = tiny.watch(monkeypatch)
    assert train("killed") == pytest.approx(straight, abs=1e-4)
    assert begun == [2, 3]  # not from the start


def test_share_is_from_0_to_1_and_told_in_the_settings():
    make = partial(OnPolicyLesson, [], tiny.teacher(), REVERSE)
    assert make(share=0.5).settings() != make(share=1.0).settings()
    for share in (-0.1, 1.5):
        with pytest.raises(RunError, match="0 to 1"):
            make(share=share)
