"""From the GGUF file of Gemma 3 270M to an ordinary Hugging Face folder.

transformers reads the weights of a GGUF file but, before 5.23, mixes up its
tokenizer, and it will not save what it has read; this module builds the
tokenizer from the file itself and saves bfloat16 safetensors.
"""

from pathlib import Path
from typing import Any

NORMAL, CONTROL, USER = 1, 3, 4  # token types of the GGUF format


def convert(gguf: Path, folder: Path) -> None:
    """Write the model's folder. Needs 3 GB of memory.

    The weights are the base model's: the chat template is the mini lab's,
    which is Gemma's in everything that the course uses.
    """
    tokenizer = gemma_tokenizer(gguf)
    tokenizer.save_pretrained(folder)
    save_weights(gguf, folder, tokenizer)


def save_weights(gguf: Path, folder: Path, tokenizer: Any) -> None:
    """The dequantized weights in bfloat16, config and generation config."""
    import torch
    from transformers import AutoModelForCausalLM

    from helpers.rebuild.minilab import finish

    model = AutoModelForCausalLM.from_pretrained(
        str(gguf.parent), gguf_file=gguf.name, dtype=torch.bfloat16
    )
    # Dequantized already, but still marked as quantized: it could not be
    # saved or trained.
    model.hf_quantizer = None
    model.is_quantized = False
    del model.config.quantization_config
    finish(model, tokenizer, folder, samples=False)


def gemma_merges(
    vocabulary: dict[str, int], scores: list[float], types: list[int]
) -> list[tuple[str, str]]:
    """The BPE merges that a SentencePiece vocabulary implies, best first."""
    scored = []
    for token, number in vocabulary.items():
        if types[number] != NORMAL or len(token) < 2:
            continue
        halves = [
            (vocabulary[token[:cut]], vocabulary[token[cut:]], cut)
            for cut in range(1, len(token))
            if token[:cut] in vocabulary and token[cut:] in vocabulary
        ]
        scored += [
            (scores[number], token[:cut], token[cut:])
            for _, _, cut in sorted(halves)
        ]
    scored.sort(key=lambda merge: -merge[0])  # stable: ties keep their order
    return [(left, right) for _, left, right in scored]


def gemma_tokenizer(gguf: Path) -> Any:
    """Gemma's tokenizer, read from the file, with the chat template."""
    from gguf import GGUFReader
    from tokenizers import (
        AddedToken,
        Tokenizer,
        models,
        normalizers,
        pre_tokenizers,
    )

    from helpers.rebuild.vocabulary import GEMMA_TEMPLATE, as_gemma

    fields = GGUFReader(gguf).fields
    tokens, scores, types = (
        fields[f"tokenizer.ggml.{name}"].contents()
        for name in ("tokens", "scores", "token_type")
    )
    vocabulary = {token: number for number, token in enumerate(tokens)}
    raw = Tokenizer(
        models.BPE(
            vocabulary,
            gemma_merges(vocabulary, scores, types),
            unk_token="<unk>",
            fuse_unk=True,
            byte_fallback=True,
        )
    )
    raw.normalizer = normalizers.Replace(" ", "▁")
    raw.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    for kind in (CONTROL, USER):
        added = [
            AddedToken(token, normalized=False, special=kind == CONTROL)
            for token, found in zip(tokens, types, strict=True)
            if found == kind
        ]
        if kind == CONTROL:
            raw.add_special_tokens(added)
        else:
            raw.add_tokens(added)
    return as_gemma(raw, chat_template=GEMMA_TEMPLATE)
