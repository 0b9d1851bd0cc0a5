"""A smaller student cut out of its teacher: fewer layers, fewer tokens.

Blocks are counted from 0 here, as in `model.model.layers`; block i makes the
hidden states that helpers.features calls layer i + 1.
"""

import contextlib
import copy
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from helpers.features import decoder_of, depth
from helpers.models import ModelError

RULES = ("every other", "least influence", "the last ones")
BYTE = re.compile(r"<0x[0-9A-F]{2}>")


@torch.no_grad()
def layer_influence(model: Any, batches: Sequence[Tensor]) -> list[float]:
    """How much every block turns what passes through it, from 0 to 2.

    batches: token ids (rows, tokens), without padding. 1 - cosine of a
    block's input and output, the mean over all positions: the block
    influence of ShortGPT (arXiv:2403.03853, equation 1). 0 changes nothing.
    """
    turns: dict[int, list[float]] = {i: [] for i in range(depth(model))}

    def measure(block: int, _: Any, given: Any, made: Any) -> None:
        made = made if torch.is_tensor(made) else made[0]
        cosine = functional.cosine_similarity(given[0], made, dim=-1)
        turns[block].append(1 - cosine.float().mean().item())

    with contextlib.ExitStack() as hooks:
        for number, block in enumerate(decoder_of(model).layers):
            hook = block.register_forward_hook(partial(measure, number))
            hooks.enter_context(hook)  # removes it in the end
        for ids in batches:
            model(input_ids=ids.to(model.device), use_cache=False)
    return [sum(turn) / len(turn) for turn in turns.values()]


def kept_blocks(
    rule: str, total: int, dropped: int, influence: Sequence[float] = ()
) -> list[int]:
    """Which of `total` blocks stay when `dropped` of them go, in order.

    The first and the last block stay by every rule but the last one.
    """
    if rule == "the last ones":
        return list(range(total - dropped))
    if rule == "least influence":
        inner = sorted(range(1, total - 1), key=lambda i: influence[i])
        return sorted(set(range(total)) - set(inner[:dropped]))
    if rule == "every other":
        gone = {round(1 + i * (total - 3) / max(1, dropped - 1)) for i in
                range(dropped)}  # fmt: skip
        return sorted(set(range(total)) - gone)
    raise ModelError(f"no rule {rule!r}: use {', '.join(RULES)}")


def prune_layers(model: Any, keep: Sequence[int]) -> Any:
    """A copy of the model with the blocks `keep` alone, in their order.

    The copy has its own weights, its config says how deep it is, and it is
    saved and loaded like any other. Raises ModelError for a block that the
    model lacks, or one named twice.
    """
    keep, total = list(keep), depth(model)
    if not keep or sorted({*range(total)} & {*keep}) != keep:
        raise ModelError(
            f"cannot keep the blocks {keep}: name each once, in rising "
            f"order, from 0 to {total - 1}"
        )
    half = copy.deepcopy(model)
    decoder, config = decoder_of(half), half.config.get_text_config()
    decoder.layers = nn.ModuleList(decoder.layers[i] for i in keep)
    for number, block in enumerate(decoder.layers):
        block.self_attn.layer_idx = number  # its place in the key-value cache
    config.num_hidden_layers = len(keep)
    if kinds := getattr(config, "layer_types", None):
        config.layer_types = [kinds[i] for i in keep]
    return half


def trim_vocabulary(
    model: Any, tokenizer: Any, texts: Iterable[str]
) -> tuple[Any, Any, list[int]]:
    """A copy of model and BPE tokenizer with the tokens of `texts` alone.

    Special tokens and the 256 bytes stay as well, so any other text can
    still be written, in more tokens. Returns the two and, for every new id,
    the old one. The model given stays as it is.
    """
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

    used = {i for text in texts for i in tokenizer(text)["input_ids"]}
    stops = model.generation_config.eos_token_id
    used |= set(stops if isinstance(stops, list) else [stops])
    state = json.loads(tokenizer.backend_tokenizer.to_str())
    bpe = state["model"]
    if bpe.get("type") != "BPE":
        raise ModelError("this tokenizer is no BPE: its vocabulary stays")
    words = tokenizer.get_vocab()
    ranks = {tuple(pair): i for i, pair in enumerate(bpe["merges"])}
    marks = [mark["content"] for mark in state["added_tokens"]]
    spelled = {word for word, i in words.items() if i in used}
    for word in spelled - {*marks}:
        spelled |= set(steps_of(word, ranks))
    if bpe["byte_fallback"]:  # Gemma's bytes are tokens of their own
        spelled |= {word for word in words if BYTE.fullmatch(word)}
    else:  # Qwen's are letters
        spelled |= {word for word in words if len(word) == 1}
    spelled |= set(tokenizer.all_special_tokens)
    old_ids = {word: i for word, i in words.items() if word in spelled}
    new_ids = {
        word: i for i, word in enumerate(sorted(old_ids, key=old_ids.get))
    }
    bpe["vocab"] = {w: i for w, i in new_ids.items() if w in bpe["vocab"]}
    bpe["merges"] = [
        pair for pair in ranks if {*pair, "".join(pair)} <= spelled
    ]
    state["added_tokens"] = [
        mark | {"id": new_ids[mark["content"]]}
        for mark in state["added_tokens"]
        if mark["content"] in new_ids
    ]
    added = (state["post_processor"] or {}).get("special_tokens", {})
    for name, mark in added.items():  # as <bos>, put in front of a text
        mark["ids"] = [new_ids[name]]
    small = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(json.dumps(state)),
        padding_side=tokenizer.padding_side,
        chat_template=tokenizer.chat_template,
        **tokenizer.special_tokens_map,
    )
    kept = sorted(old_ids.values())
    rows = model.get_input_embeddings().weight.detach()[kept]
    ids = {old: new for new, old in enumerate(kept)}
    return with_embeddings(model, rows, ids), small, kept


def steps_of(word: str, ranks: dict[tuple[str, str], int]) -> Iterator[str]:
    """Every symbol that BPE makes on its way to the word, letters first."""
    symbols = list(word)
    yield from symbols
    while pairs := [p for p in pairwise(symbols) if p in ranks]:
        best = min(pairs, key=ranks.get)
        place = list(pairwise(symbols)).index(best)
        symbols[place : place + 2] = ["".join(best)]
        yield symbols[place]


def restore_vocabulary(model: Any, original: Any, kept: list[int]) -> Any:
    """A copy of a trimmed model that has the original's tokens again.

    kept: from `trim_vocabulary`. What was trimmed comes back as it was, the
    rest as the model has learned it; the original's tokenizer fits again.
    """
    weight = original.get_input_embeddings().weight.detach().clone()
    learned = model.get_input_embeddings().weight.detach()
    weight[kept] = learned.to(weight.dtype)
    return with_embeddings(model, weight, dict(enumerate(kept)))


def with_embeddings(model: Any, weight: Tensor, ids: dict[int, int]) -> Any:
    """A copy of a model with `weight` for its tied embeddings.

    ids: old to new ids of the tokens that the configuration names.
    """
    old = model.get_input_embeddings().weight
    if model.get_output_embeddings().weight is not old:
        raise ModelError(
            "this model's output head is not its input embedding: trimming "
            "knows tied ones alone, as Gemma's and the small Qwen3's are"
        )
    new = nn.Parameter(weight, requires_grad=old.requires_grad)
    other = copy.deepcopy(model, {id(old): new})  # `new` wherever `old` was
    inputs, size = other.get_input_embeddings(), len(weight)
    inputs.num_embeddings = other.get_output_embeddings().out_features = size
    other.config.get_text_config().vocab_size = other.vocab_size = size
    for config in (other.config, other.generation_config):
        for name in ("bos_token_id", "eos_token_id", "pad_token_id"):
            value = getattr(config, name, None)
            if isinstance(value, list):
                setattr(config, name, [ids[i] for i in value if i in ids])
            elif value is not None:
                setattr(config, name, ids.get(value))
    if inputs.padding_idx is not None:
        inputs.padding_idx = other.config.pad_token_id
    return other
