"""The teacher's k likeliest tokens at every trained position, on disk.

A cache is a folder of safetensors files, the shards. It holds one row per
training row of helpers.sft, in order, and in each row one entry per trained
token. Per position it takes k * (2 or 4 + 2) bytes, not 2 * vocabulary.

Every shard says, in its metadata, its first row and what the cache was made
from, and appears whole or not at all: a killed run is continued.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from functools import partial
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from tqdm.auto import tqdm

from helpers import CourseError
from helpers.chat import encode_traces
from helpers.features import decoder_of
from helpers.files.cache import FORMAT, broken, read_shard, write_shard
from helpers.losses import (
    check_options,
    check_vocabularies,
    log_probabilities,
    output_head,
    shift_for_next_token,
)
from helpers.models import Loaded, weights_hash

CHUNK = 512  # positions whose logits exist at once
SHARD_ROWS = 64

Rows = Iterable[Mapping[str, list[int]]]


def rows_hash(rows: Rows) -> str:
    """SHA-256 of the ids and labels of encoded rows, in order."""
    digest = hashlib.sha256()
    for row in rows:
        digest.update(json.dumps([row["input_ids"], row["labels"]]).encode())
    return digest.hexdigest()


class LogitCache:
    """The shards of a folder; `write_cache` completes what a kill left.

    Rows are read when they are asked for. `settings` says what the cache was
    made from. Raises CourseError for shards that do not belong together.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)
        self.paths = sorted(self.folder.glob("rows_*.safetensors"))
        self.settings: dict[str, Any] = {}
        self.places: list[tuple[Path, int, int]] = []  # one a row, see `row`
        for path in self.paths:
            settings, first_row, lengths = read_shard(path)
            self.settings = self.settings or settings
            if (settings, first_row) != (self.settings, len(self)):
                raise broken(path, f"does not follow row {len(self)}")
            bounds = pairwise([0, *accumulate(lengths)])
            self.places += [(path, start, end) for start, end in bounds]
        self.k: int = self.settings.get("k", 0)
        self.temperature: float = self.settings.get("temperature", 1.0)

    def __len__(self) -> int:
        return len(self.places)

    @property
    def bytes_per_token(self) -> float:
        """Bytes on disk per trained position, all files' headers included."""
        size = sum(path.stat().st_size for path in self.paths)
        return size / sum(end - start for _, start, end in self.places)

    def row(self, number: int) -> tuple[Tensor, Tensor]:
        """Ids (tokens, k) int64 and log-probabilities (tokens, k) float32.

        Likeliest first, not renormalized. Raises IndexError past the end.
        """
        path, start, end = self.places[number]
        with safe_open(path, "pt") as tensors:
            ids = tensors.get_slice("ids")[start:end]
            logprobs = tensors.get_slice("logprobs")[start:end]
        return ids.long(), logprobs.float()

    def check_rows(self, rows: Rows) -> None:
        """Raises CourseError unless the cache was made for all these rows."""
        if len(self) != self.settings.get("rows"):
            raise CourseError(
                f"{self.folder.name} is empty or not finished, at "
                f"{len(self)} rows. Call write_cache to make the rest."
            )
        if rows_hash(rows) != self.settings["rows_sha256"]:
            raise CourseError(
                f"{self.folder.name} was made for other training rows: other "
                "traces, another order, tokenizer, chat template or length. "
                "Call write_cache with these, and another folder."
            )


def write_cache(
    traces: Iterable[dict],
    teacher: Loaded,
    folder: Path,
    *,
    tokenizer: Any,
    max_length: int,
    k: int = 64,
    temperature: float = 1.0,
    batch_size: int = 16,
) -> LogitCache:
    """Ask the teacher about every training row; returns the opened cache.

    Rows are those of `encode_traces` with the student's `tokenizer`; the
    teacher reads the same ids. Its padding is cut off before the softmax at
    `temperature`. A killed run is continued after its last shard, with the
    same bytes as one that was never killed if `batch_size` is the same; a
    finished cache is opened.

    Raises CourseError when the folder holds another cache or a broken one,
    or when the two tokenizers differ.
    """
    check_options(temperature)
    cache = LogitCache(folder)
    rows = encode_traces(traces, tokenizer, max_length=max_length)[0].to_list()
    settings = {
        "format": FORMAT,
        "teacher": Path(teacher.model.config.name_or_path).name,
        "teacher_sha256": weights_hash(teacher.model),
        "temperature": float(temperature),
        "k": k,
        "vocabulary": shared_vocabulary(teacher, tokenizer, k),
        "max_length": max_length,
        "rows": len(rows),
        "rows_sha256": rows_hash(rows),
    }
    if cache.settings not in ({}, settings):
        there = dict(cache.settings.items() - settings.items())
        raise CourseError(
            f"{cache.folder.name} holds a cache made from something else "
            f"({there}). Name another folder, or delete this one."
        )
    starts = range(len(cache), len(rows), SHARD_ROWS)
    for start in tqdm(starts, desc="teacher, shards", disable=not starts):
        part = rows[start : start + SHARD_ROWS]
        tensors = ask_teacher(part, teacher, settings, batch_size)
        write_shard(cache.folder, start, tensors, settings)
    return LogitCache(folder)


def shared_vocabulary(teacher: Loaded, tokenizer: Any, k: int) -> int:
    """How many of the teacher's logits mean a token; the rest is padding."""
    width = teacher.model.config.get_text_config().vocab_size
    check_vocabularies(tokenizer, teacher.tokenizer, width, width)
    vocabulary = min(len(tokenizer), width)
    if not 1 <= k <= vocabulary:
        raise CourseError(f"k is {k}: use one of 1 to {vocabulary} tokens.")
    return vocabulary


@torch.no_grad()
def ask_teacher(
    rows: list[dict], teacher: Loaded, settings: dict, batch_size: int
) -> dict[str, Tensor]:
    """A shard's tensors: ids and logprobs (positions, k), lengths (rows)."""
    vocabulary = settings["vocabulary"]
    size = torch.uint16 if vocabulary <= 2**16 else torch.int32
    model = teacher.model.eval()
    head = output_head(model, vocabulary)
    ids, logprobs, lengths = [], [], []
    for start in range(0, len(rows), batch_size):
        hidden, counts = answer_states(rows[start : start + batch_size], model)
        lengths.append(counts)
        for part in hidden.split(CHUNK):
            logs = log_probabilities(head(part), settings["temperature"])
            best = logs.topk(settings["k"], dim=-1)
            if best.values.isnan().any():
                raise CourseError("the teacher's logits are no numbers.")
            ids.append(best.indices.cpu().to(size))
            logprobs.append(best.values.cpu().half())
    return {
        "ids": torch.cat(ids),
        "logprobs": torch.cat(logprobs),
        "lengths": torch.cat(lengths),
    }


def answer_states(rows: list[dict], model: Any) -> tuple[Tensor, Tensor]:
    """Last hidden states (positions, width) that predict a trained token."""
    pad = partial(pad_sequence, batch_first=True)
    ids = [torch.tensor(row["input_ids"]) for row in rows]
    ids = pad(ids, padding_value=-1).to(model.device)
    labels = [torch.tensor(row["labels"]) for row in rows]
    labels = pad(labels, padding_value=-100)
    hidden = decoder_of(model)(
        input_ids=ids.clamp(min=0),
        attention_mask=(ids >= 0).long(),
        use_cache=False,
    ).last_hidden_state
    hidden, _, mask = shift_for_next_token(hidden, labels)
    return hidden[mask.to(hidden.device)], mask.sum(dim=1)


class PairCollator:
    """Pads rows on the right and lays the cached targets beside them.

    Gives input_ids, attention_mask and labels (batch, tokens), `soft_mask`
    (batch, tokens - 1), shifted like the labels: where the teacher has
    something to say; and with a cache topk_ids, topk_logprobs
    (batch, tokens - 1, k), each before the token it predicts.
    """

    def __init__(self, pad_id: int, cache: Any = None) -> None:
        self.pad_id = pad_id
        self.cache = cache

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, Tensor]:
        size = len(rows), max(len(row["input_ids"]) for row in rows)
        batch = {
            "input_ids": torch.full(size, self.pad_id),
            "attention_mask": torch.zeros(size, dtype=torch.long),
            "labels": torch.full(size, -100),
            "soft_mask": torch.zeros(size[0], size[1] - 1, dtype=torch.bool),
        }
        if self.cache is not None:
            shape = size[0], size[1] - 1, self.cache.k
            batch["topk_ids"] = torch.zeros(shape, dtype=torch.long)
            batch["topk_logprobs"] = torch.zeros(shape)
        for i, row in enumerate(rows):
            end = len(row["input_ids"])
            batch["input_ids"][i, :end] = torch.tensor(row["input_ids"])
            batch["attention_mask"][i, :end] = 1
            batch["labels"][i, :end] = torch.tensor(row["labels"])
            batch["soft_mask"][i, row["soft_start"] - 1 : end - 1] = True
            if self.cache is not None:
                ids, logprobs = self.cache.row(row["row"])
                places = slice(end - 1 - len(ids), end - 1)
                batch["topk_ids"][i, places] = ids
                batch["topk_logprobs"][i, places] = logprobs
        return batch
