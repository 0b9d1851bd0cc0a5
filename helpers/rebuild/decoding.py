"""Answers where a row that has ended leaves the batch.

`helpers.generate` keeps it to the batch's longest answer, which doubles the
time of an experiment that asks small models a million questions.
"""

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

from helpers.evaluate import Evaluation, render_prompts
from helpers.generate import (
    cut_after_stop,
    generate,
    pad_left,
    peak_memory_mb,
    stop_ids,
)
from helpers.models import Loaded
from helpers.profiles import Profile, Sampling


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
    started = time.perf_counter()
    completions = generate(
        loaded.model,
        loaded.tokenizer,
        render_prompts(problems, loaded.tokenizer, profile),
        sampling=profile.greedy,
        batch_size=profile.evaluation_batch,
        decode=decode,
    )
    seconds = time.perf_counter() - started
    return Evaluation(problems, completions, seconds, peak_memory_mb())


@torch.no_grad()
def decode(
    model: Any,
    tokenizer: Any,
    prompts: list[list[int]],
    *,
    sampling: Sampling,
) -> list[list[int]]:
    """As `generate_batch`: greedy, or drawn at T without any truncation."""
    model.eval().set_attn_implementation("grouped")
    stops = stop_ids(model, tokenizer)
    ids, mask = pad_left(prompts, stops[0])
    rows: list[list[int]] = [[] for _ in prompts]
    alive = torch.arange(len(prompts))
    asked: dict[str, Any] = {"past_key_values": None}
    for _ in range(sampling.max_new_tokens):
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
        logits = out.logits[:, -1, : len(tokenizer)]
        tokens = logits.argmax(dim=-1)
        if sampling.temperature:
            odds = (logits / sampling.temperature).softmax(dim=-1)
            tokens = odds.multinomial(1)[:, 0]
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
