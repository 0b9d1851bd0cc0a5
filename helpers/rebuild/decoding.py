"""Greedy answers where a row that has ended leaves the batch.

`helpers.generate` keeps it to the batch's longest answer, which doubles the
time of an experiment that asks small models a million questions.
"""

from __future__ import annotations

import time
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import (
    ALL_MASK_ATTENTION_FUNCTIONS,
    AttentionMaskInterface,
)

from helpers import chat
from helpers.evaluate import Evaluation, render_prompts
from helpers.generate import (
    Completion,
    cut_after_stop,
    length_batches,
    pad_left,
    peak_memory_mb,
    stop_ids,
)
from helpers.models import Loaded
from helpers.profiles import Profile


def grouped(
    module: Any, query: Tensor, key: Tensor, value: Tensor, mask: Any,
    scaling: float | None = None, **options: Any,
) -> tuple[Tensor, None]:  # fmt: skip
    """Attention of one new token without a copy of the cache a query head.

    The heads that share a key become its queries. Shapes as in transformers:
    (batch, heads, tokens, width), and back (batch, tokens, heads, width).
    """
    batch, heads, tokens, width = query.shape
    if tokens > 1:
        return sdpa_attention_forward(
            module, query, key, value, mask, scaling=scaling, **options
        )
    shared = query.view(batch, key.shape[1], -1, width)
    out = scaled_dot_product_attention(
        shared, key, value, attn_mask=mask, scale=scaling
    )
    return out.reshape(batch, 1, heads, width), None


AttentionInterface.register("grouped", grouped)
AttentionMaskInterface.register(
    "grouped", ALL_MASK_ATTENTION_FUNCTIONS["sdpa"]
)


def quick_evaluate(
    loaded: Loaded, problems: list[dict], profile: Profile
) -> Evaluation:
    """What `evaluate` returns for a greedy model, faster."""
    tokenizer, started = loaded.tokenizer, time.perf_counter()
    prompts = render_prompts(problems, tokenizer, profile)
    encoded = [chat.encode_text(text, tokenizer) for text in prompts]
    answers: dict[int, Completion] = {}
    for batch in length_batches(encoded, profile.evaluation_batch):
        asked = [encoded[i] for i in batch]
        rows = decode(loaded, asked, profile.max_new_tokens)
        for i, row in zip(batch, rows, strict=True):
            ended = row[-1] in stop_ids(loaded.model, tokenizer)
            answers[i] = Completion(
                chat.completion_text(row, prompts[i], tokenizer),
                len(row),
                "stop" if ended else "length",
            )
    completions = [answers[i] for i in range(len(prompts))]
    seconds = time.perf_counter() - started
    return Evaluation(problems, completions, seconds, peak_memory_mb())


@torch.no_grad()
def decode(
    loaded: Loaded, prompts: list[list[int]], limit: int
) -> list[list[int]]:
    """New ids of each prompt, the stop token included where one came."""
    model = loaded.model.eval()
    model.set_attn_implementation("grouped")
    stops = stop_ids(model, loaded.tokenizer)
    ids, mask = pad_left(prompts, stops[0])
    rows: list[list[int]] = [[] for _ in prompts]
    alive = torch.arange(len(prompts))
    asked: dict[str, Any] = {"past_key_values": None}
    for _ in range(limit):
        places = (mask.cumsum(-1) - 1).clamp(min=0)[:, -ids.shape[1] :]
        asked["past_key_values"] = (
            out := model(
                input_ids=ids,
                attention_mask=mask,
                position_ids=places,
                use_cache=True,
                logits_to_keep=1,
                **asked,
            )
        ).past_key_values
        tokens = out.logits[:, -1].argmax(dim=-1)
        for row, token in zip(alive.tolist(), tokens.tolist(), strict=True):
            rows[row].append(token)
        going = ~torch.isin(tokens, torch.tensor(stops))
        if not going.any():
            break
        if going.float().mean() < 0.9:  # leaving costs a copy of the cache
            asked["past_key_values"].batch_select_indices(
                going.nonzero()[:, 0]
            )
            alive, mask, tokens = alive[going], mask[going], tokens[going]
        ids = tokens[:, None]
        mask = torch.cat([mask, torch.ones_like(ids)], dim=1)
    return [cut_after_stop(row, stops) for row in rows]
