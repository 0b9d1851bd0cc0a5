"""The two tokenizers of the mini lab, and their chat templates."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

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

QWEN_SPECIAL = "<|endoftext|> <|im_start|> <|im_end|>".split()
THINK = "<think> </think>".split()
GEMMA_SPECIAL = "<pad> <eos> <bos> <unk> <start_of_turn> <end_of_turn>".split()
QWEN_WORDS, GEMMA_WORDS = 1000, 700
FOLDER = Path(__file__).parent
QWEN_TEMPLATE = (FOLDER / "qwen.jinja").read_text(encoding="utf-8")
# The thinking teacher's template opens the thought itself, like the real one.
QWEN_THINKING_TEMPLATE = QWEN_TEMPLATE.replace(
    "assistant\\n' }}", "assistant\\n<think>\\n' }}"
)
GEMMA_TEMPLATE = (FOLDER / "gemma.jinja").read_text(encoding="utf-8")


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
    trainer = trainers.BpeTrainer(
        vocab_size=GEMMA_WORDS,
        initial_alphabet=[*map(chr, range(33, 127)), "▁", "\n"],
        show_progress=False,
    )
    draft.train_from_iterator(corpus, trainer)
    words = sorted(draft.get_vocab(), key=draft.get_vocab().get)
    byte_tokens = [f"<0x{byte:02X}>" for byte in range(256)]
    order = [*GEMMA_SPECIAL, *byte_tokens, *words]
    merges = json.loads(draft.to_str())["model"]["merges"]
    raw = Tokenizer(
        models.BPE(
            {token: i for i, token in enumerate(order)},
            [tuple(pair) for pair in merges],
            unk_token="<unk>",
            byte_fallback=True,
            fuse_unk=True,
        )
    )
    raw.normalizer, raw.pre_tokenizer = normalizer, splits
    raw.add_special_tokens(
        [AddedToken(t, special=True, normalized=False) for t in GEMMA_SPECIAL]
    )
    return as_gemma(raw, model_max_length=512)


def as_gemma(raw: Tokenizer, **options: Any) -> PreTrainedTokenizerFast:
    """What every Gemma tokenizer does: spaces back, bytes, `<bos>` in front.

    raw: has the vocabulary and the special tokens already.
    """
    spaces = decoders.Replace("▁", " ")
    raw.decoder = decoders.Sequence(
        [spaces, decoders.ByteFallback(), decoders.Fuse()]
    )
    raw.post_processor = processors.TemplateProcessing(
        single="<bos> $A",
        pair="<bos> $A <bos> $B",
        special_tokens=[("<bos>", raw.token_to_id("<bos>"))],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=raw,
        bos_token="<bos>",
        eos_token="<eos>",
        pad_token="<pad>",
        unk_token="<unk>",
        padding_side="left",
        **options,
    )
