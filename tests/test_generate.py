"""helpers.generate: batches change nothing, and nothing is cut in silence."""

from __future__ import annotations

import random

import pytest
import tiny
import torch

from helpers import CourseError, chat
from helpers import generate as module
from helpers.generate import Sampling, cut_after_stop, generate
from helpers.traces import teacher_messages

TOKENS = 12


def prompts(loaded, count: int = 10) -> list[str]:
    """Rendered prompts whose lengths differ a lot, in no order."""
    profile = tiny.PROFILES["mini"]
    texts = [p["question"] for p in tiny.problems(count)]
    texts = ["1?", *texts[1:-1], " ".join(texts[:3])]
    return [
        chat.render(
            teacher_messages(text, profile), loaded.tokenizer, generate=True
        )
        for text in texts
    ]


def answers(loaded, wanted: list[str], size: int) -> list[module.Completion]:
    return generate(
        loaded.model,
        loaded.tokenizer,
        wanted,
        sampling=Sampling(max_new_tokens=TOKENS),
        batch_size=size,
    )


MODELS = pytest.mark.parametrize("make", [tiny.teacher, tiny.plain_student])


@MODELS
def test_generate_greedy_does_not_depend_on_the_batch(make):
    loaded = make()
    wanted = prompts(loaded)
    alone = answers(loaded, wanted, 1)
    assert answers(loaded, wanted, 8) == alone
    order = list(range(len(wanted)))
    random.Random(1).shuffle(order)
    shuffled = answers(loaded, [wanted[i] for i in order], 4)
    assert shuffled == [alone[i] for i in order]
    assert len({answer.text for answer in alone}) > 5  # it can fail


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_generate_gives_16_bit_heads_no_slices(dtype):
    """A slice would cost a copy of the weights for each row on a CPU."""
    loaded = tiny.plain_student()
    head = loaded.model.to(dtype).get_output_embeddings()
    whole = []
    head.register_forward_hook(
        lambda _, inputs, __: whole.append(inputs[0].is_contiguous())
    )
    answers(loaded, prompts(loaded), 8)
    # the first one after the prompt is a slice unless it is packed
    assert all(whole) == (dtype is torch.bfloat16)
    assert len(whole) > 2 and not head._forward_pre_hooks


@MODELS
def test_generate_right_padding_would_break_it(make, monkeypatch):
    """The same model, padded on the wrong side, answers differently."""
    loaded = make()
    wanted = prompts(loaded)
    alone = answers(loaded, wanted, 1)

    def pad_right(rows, pad_id):
        width = max(map(len, rows))
        ids = torch.tensor([r + [pad_id] * (width - len(r)) for r in rows])
        mask = torch.tensor(
            [[1] * len(r) + [0] * (width - len(r)) for r in rows]
        )
        return ids, mask

    monkeypatch.setattr(module, "pad_left", pad_right)
    wrong = answers(loaded, wanted, len(wanted))
    lengths = [len(chat.encode_text(w, loaded.tokenizer)) for w in wanted]
    longest = lengths.index(max(lengths))
    assert wrong[longest] == alone[longest]
    different = sum(a != b for a, b in zip(wrong, alone, strict=True))
    assert different > len(wanted) // 2


def test_pad_left_ids_and_mask():
    ids, mask = module.pad_left([[5], [6, 7, 8]], 0)
    assert ids.tolist() == [[0, 0, 5], [6, 7, 8]]
    assert mask.tolist() == [[0, 0, 1], [1, 1, 1]]


def test_length_batches_each_prompt_once_and_similar_lengths():
    rows = [[0] * n for n in (9, 1, 5, 2, 8)]
    batches = module.length_batches(rows, 2)
    assert batches == [[1, 3], [2, 4], [0]]


def test_cut_after_stop_keeps_the_stop_token():
    assert cut_after_stop([4, 5, 9, 0, 0], [9, 2]) == [4, 5, 9]
    assert cut_after_stop([4, 5], [9]) == [4, 5]
    assert cut_after_stop([9, 9], [9]) == [9]
    assert cut_after_stop([], [9]) == []


def test_stop_ids_own_and_the_templates():
    for loaded, names in (
        (tiny.teacher(), ["<|im_end|>"]),
        (tiny.plain_student(), ["<end_of_turn>", "<eos>"]),
    ):
        ids = loaded.tokenizer.convert_tokens_to_ids(names)
        found = module.stop_ids(loaded.model, loaded.tokenizer)
        assert found == sorted(ids)


def test_generate_finish_reasons_lengths_and_order(monkeypatch):
    loaded = tiny.plain_student()
    tokenizer = loaded.tokenizer
    wanted = [
        chat.render(chat.student_messages("x " * n), tokenizer, generate=True)
        for n in (3, 1, 2)
    ]
    end = tokenizer.convert_tokens_to_ids("<end_of_turn>")
    seven = chat.encode_text("7", tokenizer)

    def scripted(model, tokenizer, rows, **_):
        made = {}
        for row in rows:
            count = tokenizer.decode(row).count("x")
            made[count] = seven * count + ([end] if count < 3 else [])
        return list(made.values())

    monkeypatch.setattr(module, "generate_batch", scripted)
    found = answers(loaded, wanted, 2)
    assert [c.text for c in found] == ["777", "7", "77"]
    assert [c.tokens for c in found] == [3, 2, 3]
    reasons = [c.finish_reason for c in found]
    assert reasons == ["length", "stop", "stop"]


def test_generate_says_length_when_the_limit_cuts():
    loaded = tiny.teacher()
    for completion in answers(loaded, prompts(loaded), 4):
        if completion.finish_reason == "length":
            assert completion.tokens == TOKENS
        else:
            assert completion.tokens <= TOKENS
    free = answers(loaded, prompts(loaded), 4)
    assert {c.finish_reason for c in free} & {"length"}


def test_generate_refuses_a_doubled_bos():
    loaded = tiny.plain_student()
    text = "<bos>" + prompts(loaded)[0]
    with pytest.raises(CourseError, match="2 BOS tokens"):
        answers(loaded, [text], 1)


def test_generate_leaves_the_models_mode_as_it_was():
    loaded = tiny.plain_student()
    loaded.model.train()
    try:
        answers(loaded, prompts(loaded)[:1], 1)
        assert loaded.model.training
    finally:
        loaded.model.eval()


def test_generate_nothing_gives_nothing():
    assert answers(tiny.teacher(), [], 4) == []


def test_sampling_options_greedy_and_sampled():
    assert Sampling().options()["do_sample"] is False
    options = Sampling(0.6, 0.95, 20).options()
    assert options == {
        "do_sample": True,
        "temperature": 0.6,
        "top_p": 0.95,
        "top_k": 20,
        "max_new_tokens": 160,
    }


def test_generate_sampling_follows_the_seed():
    loaded = tiny.teacher()
    wanted = prompts(loaded)[:3]

    def sampled(seed):
        torch.manual_seed(seed)
        return generate(
            loaded.model,
            loaded.tokenizer,
            wanted,
            sampling=Sampling(1.0, 1.0, 0, TOKENS),
            batch_size=3,
        )

    assert sampled(1) == sampled(1) != sampled(2)
