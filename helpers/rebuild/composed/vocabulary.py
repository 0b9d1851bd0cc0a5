"""The two tokenizers of the mini lab, and their chat templates."""

from __future__ import annotations

import json
from collections.abc import Iterable

from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)
from transformers import PreTrainedTokenizerFast

QWEN_SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
THINK = ["<think>", "</think>"]
GEMMA_SPECIAL = [
    "<pad>",
    "<eos>",
    "<bos>",
    "<unk>",
    "<start_of_turn>",
    "<end_of_turn>",
]
QWEN_WORDS, GEMMA_WORDS = 1000, 700
QWEN_TEMPLATE = """\
{%- for message in messages %}
    {%- set content = message.content %}
    {%- if message.role == 'assistant' and not loop.last %}
        {%- set content = content.split('</think>')[-1].lstrip('\\n') %}
    {%- endif %}
    {{- '<|im_start|>' + message.role + '\\n' + content + '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
{%- endif %}
"""
# The thinking teacher's template opens the thought itself, like the real one.
QWEN_THINKING_TEMPLATE = QWEN_TEMPLATE.replace(
    "assistant\\n' }}", "assistant\\n<think>\\n' }}"
)
GEMMA_TEMPLATE = """\
{{- bos_token }}
{%- set ns = namespace(prefix='', turns=messages) %}
{%- if messages[0].role == 'system' %}
    {%- set ns.prefix = messages[0].content + '\\n\\n' %}
    {%- set ns.turns = messages[1:] %}
{%- endif %}
{%- for message in ns.turns %}
    {%- if (message.role == 'user') != (loop.index0 % 2 == 0) %}
        {{- raise_exception('Roles must alternate: user, assistant, ...') }}
    {%- endif %}
    {%- set role = 'model' if message.role == 'assistant' else 'user' %}
    {{- '<start_of_turn>' + role + '\\n' }}
    {{- (ns.prefix if loop.first else '') + message.content | trim }}
    {{- '<end_of_turn>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<start_of_turn>model\\n' }}
{%- endif %}
"""


def train_qwen_tokenizer(corpus: Iterable[str]) -> PreTrainedTokenizerFast:
    """Byte-level BPE; digits alone; `<think>` is one token, not special."""
    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(r"\d"), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    raw.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=QWEN_WORDS,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    raw.train_from_iterator(corpus, trainer)
    raw.add_special_tokens([AddedToken(t, special=True) for t in QWEN_SPECIAL])
    raw.add_tokens([AddedToken(t, special=False) for t in THINK])
    return PreTrainedTokenizerFast(
        tokenizer_object=raw,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        padding_side="right",
        model_max_length=512,
    )


def train_gemma_tokenizer(corpus: Iterable[str]) -> PreTrainedTokenizerFast:
    """BPE over `▁` words with byte fallback and `<bos>` put in front."""
    splits = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(r"[\d\n<>/.,:?]"), "isolated"),
            pre_tokenizers.Split("▁", "merged_with_next"),
        ]
    )
    normalizer = normalizers.Replace(" ", "▁")
    draft = Tokenizer(models.BPE())
    draft.normalizer, draft.pre_tokenizer = normalizer, splits
    printable = [chr(code) for code in range(33, 127)] + ["▁", "\n"]
    trainer = trainers.BpeTrainer(
        vocab_size=GEMMA_WORDS,
        initial_alphabet=printable,
        show_progress=False,
    )
    draft.train_from_iterator(corpus, trainer)
    words = sorted(draft.get_vocab(), key=draft.get_vocab().get)
    byte_tokens = [f"<0x{byte:02X}>" for byte in range(256)]
    order = [*GEMMA_SPECIAL, *byte_tokens, *words]
    merges = json.loads(draft.to_str())["model"]["merges"]
    merges = [tuple(pair) for pair in merges]
    raw = Tokenizer(
        models.BPE(
            {token: i for i, token in enumerate(order)},
            merges,
            unk_token="<unk>",
            byte_fallback=True,
            fuse_unk=True,
        )
    )
    raw.normalizer, raw.pre_tokenizer = normalizer, splits
    raw.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
        ]
    )
    raw.add_special_tokens(
        [AddedToken(t, special=True, normalized=False) for t in GEMMA_SPECIAL]
    )
    raw.post_processor = processors.TemplateProcessing(
        single="<bos> $A",
        pair="<bos> $A <bos> $B",
        special_tokens=[("<bos>", order.index("<bos>"))],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=raw,
        bos_token="<bos>",
        eos_token="<eos>",
        pad_token="<pad>",
        unk_token="<unk>",
        padding_side="left",
        model_max_length=512,
    )
