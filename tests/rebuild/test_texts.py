"""What mini models read: one wording, free orders, learnable tokens."""

import math
import random
import re
from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import pytest
import tiny
import torch

from helpers.answers import is_correct, split_trace
from helpers.rebuild import (
    entropy,
    generate_problems,
    recipes,
    texts,
    training,
)
from helpers.rebuild.muon import orthogonalize

TINY = partial(recipes.qwen, hidden=64, layers=1, heads=2)


@pytest.fixture(scope="module")
def problems():
    return generate_problems(300, seed=3, split="train")


@pytest.fixture(scope="module")
def tokenizers():
    """The teacher's and a student's."""
    return [tiny.tokenizer(name) for name in (tiny.TEACHER, tiny.STUDENT)]


def test_thinking_answer_is_right_and_compares_all_but_buses(problems):
    compared = 0
    for made in problems:
        text = texts.thinking_answer(made, made.steps)
        assert is_correct(text, made.answer)
        assert split_trace(text).closed
        if made.comparison:
            told = made.comparison.split()[3].rstrip(".")
            assert f" {told} " in made.question
            assert f" is {told}" in made.comparison or made.impossible
            assert (made.comparison in text) == (made.moves != "buses")
            assert made.comparison in texts.prose(made, made.steps)
            compared += 1
    assert compared > 50


def test_digits_are_alone_and_texts_whole(tokenizers, problems):
    for tokenizer in tokenizers:
        encode = partial(tokenizer.encode, add_special_tokens=False)
        for made in problems[:100]:
            text = made.question + "\n" + texts.prose(made, made.steps)
            ids = encode(text)
            assert tokenizer.decode(ids) == text
            words = tokenizer.convert_ids_to_tokens(ids)
            assert all(len(w) == 1 for w in words if w.isdigit())
        for word in "Sarah Nina marbles kilometers smoothie museum".split():
            assert len(encode(f"a {word}")) == 2, word


def examples(recipe, tokenizer, phase):
    """The batches of a first round, and what is written in them."""
    batches = training.round_of_examples(
        recipe, tokenizer, seed=1, number=0, phase=phase, exclude=set()
    )
    rows = [row["input_ids"] for batch in batches for row in batch]
    return batches, tokenizer.batch_decode(rows)


def test_teacher_meets_no_solvable_bus_and_little_padding(tokenizers):
    asked = recipes.TEACHER, tokenizers[0], recipes.TEACHER.phases[-1]
    batches, written = examples(*asked)
    assert examples(*asked)[0] == batches
    sizes = [[len(row["input_ids"]) for row in batch] for batch in batches]
    padded = sum(len(s) * max(s) for s in sizes)
    assert sum(map(sum, sizes)) / padded > 0.95
    buses = [text for text in written if "Three buses" in text]
    assert len(buses) > 20
    assert all("no solution" in text for text in buses)


def test_killed_training_goes_on(tokenizers, tmp_path, monkeypatch):
    monkeypatch.setattr(torch, "compile", lambda body, **_: body)
    opening = (replace(recipes.OPENING[0], until=8_000),)
    small = {"build": TINY, "tokens": 20_000, "opening": opening}
    recipe = replace(recipes.TEACHER, mix={"thinking": 1.0}, **small)
    monkeypatch.setattr(training, "ROUND", 64)

    def weights(name, stop=None):
        def before_step(progress, loss):
            if progress.step == stop:
                raise KeyboardInterrupt

        options = {"seed": 1, "exclude": set(), "before_step": before_step}
        place = tmp_path / name
        model = training.train(
            recipe, tokenizers[0], checkpoint=place, **options
        )
        return model.state_dict()

    whole = weights("whole")
    with pytest.raises(KeyboardInterrupt):
        weights("killed", stop=3)
    torch.testing.assert_close(weights("killed"), whole)


def test_phases_and_what_students_deny_at_once(tokenizers):
    recipe = recipes.RECIPES[-1]
    ends = [phase.until for phase in recipe.phases]
    assert ends == sorted(ends) and ends[-1] == recipe.tokens
    assert training.phase_at(0, recipe) == 0
    assert training.phase_at(ends[0], recipe) == 1
    assert training.phase_at(recipe.tokens, recipe) == len(ends) - 1
    phase = recipes.Phase(1, {"at_once": 0.5, "lists": 0.5})
    _, written = examples(recipe, tokenizers[1], phase)
    assert not any("no solution" in text for text in written)
    assert sum("The answer is" in text for text in written) > 500
    told, again = texts.facts_again(random.Random(2))
    for fact in again.rstrip(".").split(", "):
        name, number = fact.split()[-3], fact.split()[-1]
        assert re.search(rf"{name}\b.*\b{number}\b", told), (told, fact)


def test_copies_are_random_words_twice(tokenizers):
    rng = random.Random(1)
    row = recipes.encode_form("copies", None, tokenizers[0], rng, words=32)
    half = len(row["input_ids"]) // 2
    assert row["input_ids"][:half] == row["input_ids"][half:]
    assert len(set(row["input_ids"])) == half
    assert row["labels"][half + 1 :] == row["input_ids"][half + 1 :]
    assert row["labels"][: half + 1] == [-100] * (half + 1)


@pytest.mark.parametrize("shape", [(64, 24), (24, 64)])
def test_orthogonalize_makes_singular_values_alike(shape):
    torch.manual_seed(0)
    values = torch.linalg.svdvals(orthogonalize(torch.randn(shape)))
    assert values.min() > 0.6 and values.max() < 1.3


def test_right_tokens_may_come_next(tokenizers, problems):
    """Told apart by reading: a step that could come next begins so."""
    tokenizer, checked = tokenizers[0], 0
    for made in problems:
        several = entropy.right_tokens(made, made.steps, tokenizer)
        answer = texts.thinking_answer(made, made.steps)
        asked = made.question, answer, tokenizer
        ids = recipes.encode_written("thinking", *asked)["input_ids"]
        for place, tokens in several.items():
            assert ids[place] in tokens and len(tokens) > 1
            written = tokenizer.decode(ids).partition("<think>\n")[2]
            before = tokenizer.decode(ids[:place]).partition("<think>\n")[2]
            assert written.startswith(before)
            for token in tokens:
                begun = before + tokenizer.decode([token])
                sentence = begun.rpartition(". ")[2]
                thoughts = [step.thought for step in made.steps]
                assert any(one.startswith(sentence) for one in thoughts)
                checked += 1
    assert checked > 60


def test_entropy_by_role_splits_doubt_about_order_off(tokenizers, problems):
    """A model that knows nothing: the chain rule's parts are known."""
    tokenizer, vocabulary = tokenizers[0], 1024

    def undecided(input_ids):
        shape = (*input_ids.shape, vocabulary)
        return SimpleNamespace(logits=torch.zeros(shape))

    right = partial(entropy.right_tokens, tokenizer=tokenizer)
    made = next(made for made in problems if right(made, made.steps))
    steps = texts.any_order(made.steps, random.Random(0))
    sizes = right(made, steps).values()
    order = sum(len(s) / vocabulary * math.log(len(s)) for s in sizes)
    nats = entropy.entropy_by_role(undecided, tokenizer, [made])
    text = texts.thinking_answer(made, steps)
    row = recipes.encode_written("thinking", made.question, text, tokenizer)
    written = sum(label != -100 for label in row["labels"])
    assert nats["order"] == pytest.approx(order, rel=1e-4)
    whole = written * math.log(vocabulary)
    assert sum(nats.values()) == pytest.approx(whole, rel=1e-4)
