"""What mini models read: one wording, free orders, learnable tokens."""

import random

import pytest
import torch

from helpers import chat
from helpers.answers import is_correct, split_trace
from helpers.rebuild.composed import (
    entropy,
    generate_problems,
    recipes,
    texts,
    training,
    vocabulary,
)
from helpers.rebuild.composed.muon import orthogonalize


@pytest.fixture(scope="module")
def problems():
    return generate_problems(300, seed=3, split="train")


@pytest.fixture(scope="module")
def tokenizers():
    """Both, dressed with their chat templates."""
    corpus = list(texts.corpus(7, count=500))
    qwen = vocabulary.train_qwen_tokenizer(corpus)
    qwen.chat_template = vocabulary.QWEN_THINKING_TEMPLATE
    gemma = vocabulary.train_gemma_tokenizer(corpus)
    gemma.chat_template = vocabulary.GEMMA_TEMPLATE
    return qwen, gemma


def test_any_order_gives_every_step_what_it_needs(problems):
    rng, orders = random.Random(0), 0
    for made in problems:
        several = {tuple(texts.any_order(made.steps, rng)) for _ in range(8)}
        orders += len(several) > 1
        for steps in several:
            assert set(steps) == set(made.steps)
            for place, step in enumerate(steps):
                before = {made.steps.index(s) for s in steps[:place]}
                assert step.needs <= before
    assert orders > 50


def test_thinking_answer_is_right_and_closed(problems):
    for made in problems:
        text = texts.thinking_answer(made, made.steps)
        assert is_correct(text, made.answer)
        assert split_trace(text).closed


def test_thinking_answer_compares_told_totals_but_not_buses(problems):
    for made in problems:
        if made.comparison:
            thought = texts.thinking_answer(made, made.steps)
            compared = made.comparison in thought
            assert compared == (made.moves != "buses")
            assert made.comparison in texts.prose(made, made.steps)


def test_comparison_repeats_the_told_total(problems):
    for made in problems:
        if made.comparison:
            told = made.comparison.split()[3].rstrip(".")
            assert f" {told} " in made.question
            assert f" is {told}" in made.comparison or made.impossible


def test_one_sum_is_right_and_in_range():
    rng = random.Random(0)
    for _ in range(2000):
        equation, value = texts.one_sum(rng).rstrip(".").split("=")
        assert eval(equation) == int(value)  # noqa: S307
        assert 0 <= int(value) <= 120


def test_tokenizers_keep_digits_alone_and_texts_whole(tokenizers, problems):
    for tokenizer in tokenizers:
        for made in problems[:100]:
            text = made.question + "\n" + texts.prose(made, made.steps)
            ids = tokenizer(text, add_special_tokens=False)["input_ids"]
            assert tokenizer.decode(ids) == text
            words = tokenizer.convert_ids_to_tokens(ids)
            assert all(len(w) == 1 for w in words if w.isdigit())


def test_content_words_are_single_tokens(tokenizers):
    for tokenizer in tokenizers:
        for word in "Sarah Nina marbles kilometers smoothie museum".split():
            ids = tokenizer(f"a {word}", add_special_tokens=False)
            assert len(ids["input_ids"]) == 2, word


def test_teacher_meets_no_solvable_bus(tokenizers):
    recipe = recipes.RECIPES[0]
    batches = training.round_of_examples(
        recipe, tokenizers[0], seed=1, number=0, early=False, exclude=set()
    )
    written = [
        tokenizers[0].decode(row["input_ids"]) for b in batches for row in b
    ]
    buses = [text for text in written if "Three buses" in text]
    assert len(buses) > 20
    assert all("no solution" in text for text in buses)


def test_round_of_examples_repeats_itself(tokenizers):
    rounds = [
        training.round_of_examples(
            recipes.RECIPES[1],
            tokenizers[1],
            seed=1,
            number=4,
            early=True,
            exclude=set(),
        )
        for _ in range(2)
    ]
    assert rounds[0] == rounds[1]


def test_batches_hold_rows_of_one_length(tokenizers):
    batches = training.round_of_examples(
        recipes.RECIPES[0],
        tokenizers[0],
        seed=2,
        number=1,
        early=False,
        exclude=set(),
    )
    sizes = [[len(row["input_ids"]) for row in batch] for batch in batches]
    used = sum(map(sum, sizes))
    assert used / sum(len(s) * max(s) for s in sizes) > 0.95


def test_train_continues_where_it_was_killed(
    tokenizers, tmp_path, monkeypatch
):
    monkeypatch.setattr(torch, "compile", lambda body, **_: body)
    recipe = recipes.Recipe(
        name="tiny",
        build=lambda: recipes.qwen(hidden=64, layers=1, heads=2),
        tokenizer=vocabulary.train_qwen_tokenizer,
        template=vocabulary.QWEN_THINKING_TEMPLATE,
        mix={"thinking": 1.0},
        tokens=12_000,
        batch_tokens=2048,
    )

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


def test_orthogonalize_makes_singular_values_alike():
    torch.manual_seed(0)
    for shape in ((64, 24), (24, 64)):
        values = torch.linalg.svdvals(orthogonalize(torch.randn(shape)))
        assert values.min() > 0.6 and values.max() < 1.3


def test_entropy_by_role_of_an_untrained_model_follows_the_tokens(
    tokenizers, problems
):
    torch.manual_seed(0)
    model = recipes.qwen(hidden=64, layers=1, heads=2).eval()
    some = [p for p in problems if p.moves != "buses"][:20]
    nats = entropy.entropy_by_role(model, tokenizers[0], some)
    assert set(nats) == set(entropy.ROLES)
    # it knows nothing: every token costs about the logarithm of 768
    rng = random.Random(0)
    rows = [
        chat.encode_example(
            chat.student_messages(
                p.question,
                texts.thinking_answer(p, texts.any_order(p.steps, rng)),
            ),
            tokenizers[0],
            max_length=999,
        )
        for p in some
    ]
    tokens = sum(x != -100 for row in rows for x in row["labels"])
    assert sum(nats.values()) == pytest.approx(
        tokens / len(some) * 6.64, rel=0.05
    )
    assert min(nats.values()) > 0


def test_free_characters_mark_where_two_steps_could_come_next(problems):
    branching = next(
        p
        for p in problems
        if [s.needs for s in p.steps[:3]] == [frozenset(), frozenset(), {0, 1}]
    )
    free = entropy.free_characters(branching, branching.steps)
    first = branching.steps[0].thought
    assert 0 in free and max(free) < len(first)
