"""The files of a cache: index.json and its shards (helpers.logit_cache).

Both appear whole or not at all, and the index after the shard it names, so
what a killed run leaves behind can be trusted.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from helpers.files import write_atomic

FORMAT = 1
INDEX = "index.json"


class LogitCacheError(ValueError):
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
