"""What a model weighs and writes.

Memory first, then batched generation: sorted by length, left-padded, nothing
cut silently.
"""

from __future__ import annotations

import ctypes
import hashlib
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch.nn.utils.rnn import pad_sequence
from tqdm.auto import tqdm

from helpers import chat
from helpers.profiles import Sampling

PROCESS = Path("/proc/self")  # Linux only


def parameter_counts(model: Any) -> dict[str, int]:
    """Trainable and total parameters; a 4-bit byte counts as two."""
    counts = {"trainable": 0, "total": 0}
    for parameter in model.parameters():
        packed = type(parameter).__name__ == "Params4bit"
        size = parameter.numel() * (2 if packed else 1)
        counts["total"] += size
        counts["trainable"] += size * parameter.requires_grad
    return counts


def weights_hash(model: Any) -> str:
    """Of the first 64 values of each parameter: training changes them all."""
    digest = hashlib.sha256()
    for name, parameter in model.named_parameters():
        some = parameter.detach().flatten()[:64].float().cpu()
        digest.update(name.encode() + some.numpy().tobytes())
    return digest.hexdigest()


def reset_peak() -> bool:
    """Forget the peak so far; what is in use stays in use, and counts.

    False where the process's peak cannot be forgotten (macOS, Windows, some
    containers): `peak_memory_mb` is then the peak since the process began.
    """
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
        return True
    with suppress(OSError, AttributeError):  # freed memory first, by glibc
        ctypes.CDLL("libc.so.6").malloc_trim(0)
    try:
        (PROCESS / "clear_refs").write_text("5")
    except OSError:
        return False
    return True


def peak_memory_mb() -> float:
    """Peak since `reset_peak` in MiB (of the GPU where there is one)."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**20
    with suppress(OSError, IndexError):
        status = (PROCESS / "status").read_text()
        return int(status.split("VmHWM:")[1].split()[0]) / 2**10
    if sys.platform == "win32":
        import psutil

        return psutil.Process().memory_info().peak_wset / 2**20
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)


@dataclass(frozen=True)
class Completion:
    """What a model wrote: text, its length in tokens, and why it stopped.

    `finish_reason` is "stop" after an end-of-turn token and "length" when
    `max_new_tokens` cut the text.
    """

    text: str
    tokens: int
    finish_reason: str


def stop_ids(model: Any, tokenizer: Any) -> list[int]:
    """Every token that ends an answer: the model's own and the template's."""
    ends = model.generation_config.eos_token_id
    ids = set(ends if isinstance(ends, list) else [ends]) - {None}
    turn = chat.encode_text(chat.end_of_turn(tokenizer), tokenizer)
    return sorted(ids | {tokenizer.eos_token_id, turn[0]})


def pad_left(
    prompts: list[list[int]], pad_id: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids and attention mask, (batch, longest), padding on the left.

    Padding on the right would make the model continue after padding, and
    everything but the longest row would come out wrong.
    """
    pad = partial(pad_sequence, batch_first=True, padding_side="left")
    rows = [torch.tensor(prompt) for prompt in prompts]
    ids = pad(rows, padding_value=pad_id)
    mask = pad([torch.ones_like(row) for row in rows])
    return ids, mask


def length_batches(prompts: list[list[int]], size: int) -> list[list[int]]:
    """Positions of the prompts, in batches of similar length."""
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    return [order[i : i + size] for i in range(0, len(order), size)]


@contextmanager
def packed_head(model: Any) -> Iterator[None]:
    """Hand the output layer its rows in one piece, for 16-bit weights.

    After a prompt it gets a slice, one position a row. On a CPU torch then
    copies frozen 16-bit weights once for each row: 320 MiB a row for Gemma 3
    270M (github.com/pytorch/pytorch/issues/151934).
    """
    head = model.get_output_embeddings()

    def pack(_: Any, inputs: tuple[torch.Tensor, ...]) -> Any:
        wide = head.weight.dtype is torch.float32
        return None if wide else tuple(x.contiguous() for x in inputs)

    with head.register_forward_pre_hook(pack):
        yield


@torch.no_grad()
def generate_batch(
    model: Any,
    tokenizer: Any,
    prompts: list[list[int]],
    *,
    sampling: Sampling,
) -> list[list[int]]:
    """New ids of each prompt, the stop token included where one came."""
    stops = stop_ids(model, tokenizer)
    pad = tokenizer.pad_token_id
    pad = stops[0] if pad is None else pad
    ids, mask = pad_left(prompts, pad)
    device = next(model.parameters()).device
    with packed_head(model):
        output = model.generate(
            input_ids=ids.to(device),
            attention_mask=mask.to(device),
            eos_token_id=stops,
            pad_token_id=pad,
            use_cache=True,
            **sampling.options(),
        )
    rows = output[:, ids.shape[1] :].tolist()
    return [cut_after_stop(row, stops) for row in rows]


def cut_after_stop(row: list[int], stops: list[int]) -> list[int]:
    """The row up to and with its first stop token; whole if there is none."""
    ends = (i for i, token in enumerate(row, start=1) if token in stops)
    return row[: next(ends, None)]


def generate(
    model: Any,
    tokenizer: Any,
    prompts: list[str],
    *,
    sampling: Sampling,
    batch_size: int,
    progress: str | None = None,
    decode: Callable[..., list[list[int]]] | None = None,
) -> list[Completion]:
    """Complete rendered prompts (text from `chat.render`), in their order.

    Greedy output does not depend on the batch a prompt lands in. `progress`
    names a tqdm bar; None shows no bar. `decode` takes the place of
    `generate_batch`.
    """
    decode = decode or generate_batch
    encoded = [chat.encode_text(prompt, tokenizer) for prompt in prompts]
    for ids in encoded:
        chat.check_single_bos(ids, tokenizer)
    stops = stop_ids(model, tokenizer)
    answers: dict[int, Completion] = {}
    was_training = model.training
    model.eval()
    bar = tqdm(total=len(prompts), desc=progress, disable=progress is None)
    for batch in length_batches(encoded, batch_size):
        ids = [encoded[i] for i in batch]
        rows = decode(model, tokenizer, ids, sampling=sampling)
        for i, row in zip(batch, rows, strict=True):
            finished = bool(row) and row[-1] in stops
            answers[i] = Completion(
                text=chat.completion_text(row, prompts[i], tokenizer),
                tokens=len(row),
                finish_reason="stop" if finished else "length",
            )
        bar.update(len(batch))
    bar.close()
    model.train(was_training)
    return [answers[i] for i in range(len(prompts))]
