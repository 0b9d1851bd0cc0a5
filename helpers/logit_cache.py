"""The teacher's k likeliest tokens at every trained position, on disk.

A cache is a folder: shards of rows in safetensors files, and `index.json`,
which says what the cache was made from and which shards are complete. It
holds one row per training row of helpers.sft, in the same order, and in each
row one entry per trained token: entry j predicts the j-th of them. Per
position it takes k * (2 or 4 + 2) bytes instead of 2 * vocabulary.

Index and shards appear whole or not at all, so a killed run is continued.
"""

from __future__ import annotations

import hashlib
import json
import os
from bisect import bisect_right
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from helpers import CourseError
from helpers.losses import (
    check_options,
    check_vocabularies,
    log_probabilities,
    shift_for_next_token,
)
from helpers.models import Loaded, weights_hash
from helpers.profiles import write_atomic
from helpers.sft import encode_traces

FORMAT = 1
INDEX = "index.json"


class LogitCacheError(CourseError):
    """A cache that cannot be used; names the file and the cure."""


@dataclass(frozen=True)
class Shard:
    """One file: rows from `first_row` on, row i at offsets[i : i + 2]."""

    path: Path
    first_row: int
    offsets: list[int]


def read_index(folder: Path) -> dict[str, Any] | None:
    """index.json, or None where there is none."""
    try:
        index = json.loads((folder / INDEX).read_text(encoding="utf-8"))
        found = index["format"]
    except FileNotFoundError:
        return None
    except (ValueError, TypeError, KeyError) as error:
        raise LogitCacheError(
            f"{folder.name}/{INDEX} is no index of a cache. {cure(folder)}"
        ) from error
    if found != FORMAT:
        raise LogitCacheError(
            f"{folder.name} has format {found}, this course reads {FORMAT}. "
            f"{cure(folder)}"
        )
    return index


def cure(folder: Path) -> str:
    return f"Delete the folder {folder.name} and make the cache again."


def rows_done(index: dict[str, Any]) -> int:
    return sum(entry["rows"] for entry in index["shards"])


def open_shard(folder: Path, entry: dict[str, Any], k: int) -> Shard:
    """Check a shard against its entry in the index."""
    path = folder / entry["file"]
    where = f"{folder.name}/{path.name}"
    if not path.exists():
        raise LogitCacheError(f"{where} is missing. {cure(folder)}")
    size = path.stat().st_size
    if size != entry["bytes"]:
        raise LogitCacheError(
            f"{where} has {size} bytes, the index says {entry['bytes']}: it "
            f"was cut or changed. {cure(folder)}"
        )
    try:
        with safe_open(path, "pt") as tensors:
            lengths = tensors.get_tensor("lengths")
            shapes = [
                tensors.get_slice(name).get_shape()
                for name in ("ids", "logprobs")
            ]
    except SafetensorError as error:
        raise LogitCacheError(
            f"{where} cannot be read ({error}). {cure(folder)}"
        ) from error
    expected = [entry["positions"], k]
    if shapes != [expected] * 2 or lengths.sum() != entry["positions"]:
        raise LogitCacheError(
            f"{where} holds {shapes[0]} ids, the index says {expected}. "
            f"{cure(folder)}"
        )
    return Shard(path, entry["first_row"], [0, *lengths.cumsum(0).tolist()])


def write_index(folder: Path, index: dict[str, Any]) -> None:
    write_atomic(folder / INDEX, json.dumps(index, indent=1))


def text_hash(values: Iterable[Any]) -> str:
    """SHA-256 over JSON values, in order."""
    digest = hashlib.sha256()
    for value in values:
        digest.update(json.dumps(value).encode() + b"\n")
    return digest.hexdigest()


def continue_index(folder: Path, index: dict[str, Any]) -> dict[str, Any]:
    """The index in the folder if it fits, or the new one."""
    found = read_index(folder)
    if found is None:
        return index
    changed = {
        name: (found.get(name), value)
        for name, value in index.items()
        if name != "shards" and found.get(name) != value
    }
    if changed:
        raise LogitCacheError(
            f"{folder.name} holds a cache made from something else (there, "
            f"here): {changed}. Name another folder, or delete this one."
        )
    for entry in found["shards"]:
        open_shard(folder, entry, found["k"])
    return found


def write_shard(
    folder: Path, first_row: int, tensors: dict[str, Tensor]
) -> dict[str, Any]:
    """A complete file or none, and its entry for the index."""
    path = folder / f"rows_{first_row:06d}.safetensors"
    draft = path.with_suffix(".part")
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with draft.open("wb") as handle:
            handle.write(save(tensors))
            handle.flush()
            os.fsync(handle.fileno())
        os.replace(draft, path)
    except OSError as error:
        raise OSError(
            error.errno,
            f"cannot write {path.name}: {error.strerror}. Free some space "
            "and start again; the shards before it are kept",
        ) from error
    finally:
        draft.unlink(missing_ok=True)
    return {
        "file": path.name,
        "first_row": first_row,
        "rows": len(tensors["lengths"]),
        "positions": len(tensors["ids"]),
        "bytes": path.stat().st_size,
    }


CHUNK = 512  # positions whose logits exist at once

Rows = list[dict[str, list[int]]]


class LogitCache:
    """A complete cache, made by `write_cache` or opened by `open_cache`.

    Rows are read when they are asked for. `index` is index.json as it is.
    """

    def __init__(self, folder: Path, index: dict[str, Any]) -> None:
        self.folder, self.index = folder, index
        self.k: int = index["k"]
        self.temperature: float = index["temperature"]
        self.shards = [
            open_shard(folder, entry, self.k) for entry in index["shards"]
        ]

    def __len__(self) -> int:
        return self.index["rows"]

    @property
    def bytes_per_token(self) -> float:
        """Bytes on disk per trained position, all files' headers included."""
        size = sum(entry["bytes"] for entry in self.index["shards"])
        return size / self.index["positions"]

    def row(self, number: int) -> tuple[Tensor, Tensor]:
        """Ids (tokens, k) int64 and log-probabilities (tokens, k) float32.

        Likeliest first, not renormalized. Raises IndexError past the end.
        """
        if not 0 <= number < len(self):
            raise IndexError(f"row {number} of a cache of {len(self)} rows")
        firsts = [shard.first_row for shard in self.shards]
        shard = self.shards[bisect_right(firsts, number) - 1]
        place = number - shard.first_row
        start, end = shard.offsets[place : place + 2]
        with safe_open(shard.path, "pt") as tensors:
            ids = tensors.get_slice("ids")[start:end]
            logprobs = tensors.get_slice("logprobs")[start:end]
        return ids.long(), logprobs.float()


def open_cache(folder: Path) -> LogitCache:
    """A complete cache; raises LogitCacheError for any other folder."""
    folder = Path(folder)
    index = read_index(folder)
    if index is None:
        raise LogitCacheError(
            f"{folder.name}: no {INDEX} there, so no cache. Run notebook 05, "
            "or call write_cache, to make it."
        )
    done = rows_done(index)
    if done < index["rows"]:
        raise LogitCacheError(
            f"{folder.name} holds {done} of {index['rows']} rows. Call "
            "write_cache with the same arguments again to finish it."
        )
    return LogitCache(folder, index)


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
    shard_rows: int = 64,
    progress: bool | Callable[[int, int], None] = True,
) -> LogitCache:
    """Ask the teacher about every training row; returns the opened cache.

    Rows are those of `encode_traces` with the student's `tokenizer`; the
    teacher reads the same ids. Its padding is cut off before the softmax at
    `temperature`. A killed run is continued after its last shard, with the
    same result as one that was never killed if the batch and shard sizes are
    the same too; a finished cache is opened. `progress` draws a bar, or is
    called with (rows done, rows) after every shard.

    Raises LogitCacheError when the folder holds another cache or a broken
    one, LossError when the two tokenizers differ or k is too large.
    """
    from tqdm.auto import tqdm

    folder, traces = Path(folder), list(traces)
    check_options(temperature)
    rows = encode_traces(traces, tokenizer, max_length=max_length)[0].to_list()
    index = new_index(
        traces,
        rows,
        teacher,
        tokenizer,
        k=k,
        temperature=temperature,
        max_length=max_length,
    )
    index = continue_index(folder, index)
    teacher.model.eval()
    done = rows_done(index)
    hidden = progress is not True
    with tqdm(
        total=len(rows), initial=done, desc="teacher", disable=hidden
    ) as bar:
        for start in range(done, len(rows), shard_rows):
            part = rows[start : start + shard_rows]
            tensors = ask_teacher(part, teacher.model, index, batch_size)
            index["shards"].append(write_shard(folder, start, tensors))
            write_index(folder, index)
            bar.update(len(part))
            if callable(progress):
                progress(rows_done(index), len(rows))
    return open_cache(folder)


def new_index(
    traces: list[dict],
    rows: Rows,
    teacher: Loaded,
    tokenizer: Any,
    *,
    k: int,
    temperature: float,
    max_length: int,
) -> dict[str, Any]:
    """All that a cache depends on, and no shards yet."""
    config = teacher.model.config.get_text_config()
    if getattr(config, "final_logit_softcapping", None):
        raise LogitCacheError(
            f"{config.name_or_path} bends its logits after the head (soft "
            "capping), which a cache leaves out. Choose another teacher."
        )
    width = config.vocab_size
    check_vocabularies(tokenizer, teacher.tokenizer, width, width)
    vocabulary = min(len(tokenizer), width)  # what lies behind is padding
    if not 1 <= k <= vocabulary:
        raise LogitCacheError(
            f"k is {k}, but the vocabulary has {vocabulary} tokens: use 1 to "
            f"{vocabulary}"
        )
    asked = [(t["id"], t["question"], t["qwen3_answer"]) for t in traces]
    labels = [label for row in rows for label in row["labels"][1:]]
    return {
        "format": FORMAT,
        "teacher": Path(teacher.model.config.name_or_path).name,
        "teacher_sha256": weights_hash(teacher.model),
        "tokenizer_sha256": text_hash(sorted(tokenizer.get_vocab().items())),
        "temperature": float(temperature),
        "k": k,
        "vocabulary": vocabulary,
        "max_length": max_length,
        "traces_sha256": text_hash(asked),
        "rows_sha256": text_hash(rows),
        "rows": len(rows),
        "positions": sum(label != -100 for label in labels),
        "shards": [],
    }


@torch.no_grad()
def ask_teacher(
    rows: Rows, model: Any, index: dict[str, Any], batch_size: int
) -> dict[str, Tensor]:
    """A shard's tensors: ids and logprobs (positions, k), lengths (rows)."""
    size = torch.uint16 if index["vocabulary"] <= 2**16 else torch.int32
    ids, logprobs, lengths = [], [], []
    for start in range(0, len(rows), batch_size):
        hidden, counts = answer_states(rows[start : start + batch_size], model)
        lengths.append(counts)
        for part in hidden.split(CHUNK):
            logits = model.get_output_embeddings()(part)
            logits = logits[..., : index["vocabulary"]]
            logs = log_probabilities(logits, index["temperature"])
            best = logs.topk(index["k"], dim=-1)
            ids.append(best.indices.cpu().to(size))
            logprobs.append(best.values.cpu().half())
    return {
        "ids": torch.cat(ids),
        "logprobs": torch.cat(logprobs),
        "lengths": torch.cat(lengths),
    }


def answer_states(rows: Rows, model: Any) -> tuple[Tensor, Tensor]:
    """Last hidden states (positions, width) that predict a trained token."""
    shape = len(rows), max(len(row["input_ids"]) for row in rows)
    ids, attention = torch.zeros(2, *shape, dtype=torch.long)
    labels = torch.full(shape, -100)
    for i, row in enumerate(rows):
        end = len(row["input_ids"])
        ids[i, :end] = torch.tensor(row["input_ids"])
        labels[i, :end] = torch.tensor(row["labels"])
        attention[i, :end] = 1
    ids, attention = ids.to(model.device), attention.to(model.device)
    hidden = model.get_decoder()(
        input_ids=ids, attention_mask=attention, use_cache=False
    ).last_hidden_state
    hidden, _, mask = shift_for_next_token(hidden, labels)
    return hidden[mask.to(hidden.device)], mask.sum(dim=1)
