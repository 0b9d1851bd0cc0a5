"""helpers.generate: batches change nothing, and nothing is cut in silence."""

from copy import deepcopy
from dataclasses import replace

import pytest
import tiny
import torch

from helpers import chat
from helpers import generate as module
from helpers.generate import Sampling, generate
from helpers.traces import teacher_messages

TOKENS = 12


def prompts(loaded, count: int = 10) -> list[str]:
    """Rendered prompts whose lengths differ a lot, in no order."""
    texts = [p["question"] for p in tiny.problems(count)]
    texts = ["1?", *texts[1:-1], " ".join(texts[:3])]
    chats = [teacher_messages(x, tiny.PROFILES["mini"]) for x in texts]
    return [chat.render(c, loaded.tokenizer, generate=True) for c in chats]


def answers(loaded, texts: list[str], size: int, *sampling) -> list:
    options = {"sampling": Sampling(*sampling, max_new_tokens=TOKENS)}
    asked = loaded.model, loaded.tokenizer, texts
    return generate(*asked, batch_size=size, **options)


@pytest.mark.parametrize("make", [tiny.teacher, tiny.plain_student])
def test_generate_greedy_does_not_depend_on_the_batch(make):
    loaded = make()
    texts = prompts(loaded)
    alone = answers(loaded, texts, 1)
    assert answers(loaded, texts[::-1], 4) == alone[::-1]
    assert len({answer.text for answer in alone}) > 5  # it can fail
    assert all(a.tokens <= TOKENS for a in alone)
    assert all(a.tokens == TOKENS for a in alone if a.finish_reason != "stop")


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_generate_gives_16_bit_heads_no_slices(dtype):
    """A slice would cost a copy of the weights for each row on a CPU."""
    loaded = tiny.plain_student()
    loaded = replace(loaded, model=deepcopy(loaded.model).to(dtype))
    head = loaded.model.get_output_embeddings()
    whole = []
    with head.register_forward_hook(
        lambda _, inputs, __: whole.append(inputs[0].is_contiguous())
    ):
        answers(loaded, prompts(loaded), 8)
    # the first one after the prompt is a slice unless it is packed
    assert all(whole) == (dtype is torch.bfloat16)
    assert len(whole) > 2 and not head._forward_pre_hooks


def test_generate_finish_reasons_lengths_and_order(monkeypatch):
    loaded = tiny.plain_student()
    tokenizer = loaded.tokenizer
    texts = [
        chat.render(chat.student_messages("x " * n), tokenizer, generate=True)
        for n in (3, 1, 2)
    ]
    end = tokenizer.convert_tokens_to_ids("<end_of_turn>")
    seven = chat.encode_text("7", tokenizer)

    def scripted(model, tokenizer, rows, **_):
        counts = [tokenizer.decode(row).count("x") for row in rows]
        return [seven * n + ([end] if n < 3 else []) for n in counts]

    monkeypatch.setattr(module, "generate_batch", scripted)
    assert answers(loaded, texts, 2) == [
        module.Completion("777", 3, "length"),
        module.Completion("7", 2, "stop"),
        module.Completion("77", 3, "stop"),
    ]


def test_generate_sampling_follows_the_seed():
    loaded = tiny.teacher()

    def sampled(seed):
        torch.manual_seed(seed)
        return answers(loaded, prompts(loaded)[:3], 3, 1.0, 1.0, 0)

    assert sampled(1) == sampled(1) != sampled(2)
