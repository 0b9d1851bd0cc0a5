"""What mini models read: one wording, free orders, learnable tokens."""

import random
import re
from dataclasses import replace
from functools import partial

import pytest
import torch

from helpers.answers import is_correct, split_trace
from helpers.rebuild import (
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
    """The teacher's and a student's, dressed with their chat templates."""
    corpus, pair = list(texts.corpus(7, count=500)), []
    for recipe in recipes.RECIPES[:2]:
        pair.append(recipe.tokenizer(corpus))
        pair[-1].chat_template = recipe.template
    return pair


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


def test_tokenizers_keep_digits_alone_words_and_texts_whole(
    tokenizers, problems
):
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


def test_teacher_meets_no_solvable_bus_and_little_padding(tokenizers):
    recipe = recipes.TEACHER
    draw = partial(
        training.round_of_examples, recipe, tokenizers[0], seed=1, number=0
    )
    batches = draw(phase=recipe.phases[-1], exclude=set())
    assert draw(phase=recipe.phases[-1], exclude=set()) == batches
    sizes = [[len(row["input_ids"]) for row in batch] for batch in batches]
    padded = sum(len(s) * max(s) for s in sizes)
    assert sum(map(sum, sizes)) / padded > 0.95
    rows = [row["input_ids"] for batch in batches for row in batch]
    written = tokenizers[0].batch_decode(rows)
    buses = [text for text in written if "Three buses" in text]
    assert len(buses) > 20
    assert all("no solution" in text for text in buses)


def test_train_continues_where_it_was_killed(
    tokenizers, tmp_path, monkeypatch
):
    monkeypatch.setattr(torch, "compile", lambda body, **_: body)
    recipe = replace(
        recipes.TEACHER,
        build=TINY,
        mix={"thinking": 1.0},
        tokens=20_000,
        opening=(replace(recipes.OPENING[0], until=8_000),),
    )
    monkeypatch.setattr(training, "ROUND", 64)

    def weights(name, stop=None):
        def before_step(progress, loss):
            if progress.step == stop:
                raise KeyboardInterrupt

        return training.train(
            recipe,
            tokenizers[0],
            seed=1,
            checkpoint=tmp_path / name,
            exclude=set(),
            before_step=before_step,
        ).state_dict()

    whole = weights("whole")
    with pytest.raises(KeyboardInterrupt):
        weights("killed", stop=3)
    for name, tensor in weights("killed").items():
        torch.testing.assert_close(tensor, whole[name])


def test_phases_follow_each_other_and_students_deny_nothing_at_once(
    tokenizers,
):
    recipe = recipes.RECIPES[-1]
    ends = [phase.until for phase in recipe.phases]
    assert ends == sorted(ends) and ends[-1] == recipe.tokens
    assert training.phase_at(0, recipe) == 0
    assert training.phase_at(ends[0], recipe) == 1
    assert training.phase_at(recipe.tokens, recipe) == len(ends) - 1
    phase = recipes.Phase(1, {"at_once": 0.5, "lists": 0.5})
    batches = training.round_of_examples(
        recipe, tokenizers[1], seed=1, number=0, phase=phase, exclude=set()
    )
    rows = [row["input_ids"] for batch in batches for row in batch]
    written = tokenizers[1].batch_decode(rows)
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
