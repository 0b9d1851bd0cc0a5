"""The shards of a logit cache: safetensors files, each whole or not there.

Every shard says, in its metadata, its first row, what the cache was made
from, and the SHA-256 of its tensors.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from helpers import CourseError
from helpers.files.disk import write_atomic

FORMAT = 3
TENSORS = ("ids", "logprobs", "lengths")
METADATA = "cache"  # one entry: safetensors does not keep an order of several


def write_shard(
    folder: Path, first_row: int, tensors: dict[str, Tensor], settings: dict
) -> Path:
    """A whole file or none: ids, logprobs (positions, k), lengths (rows)."""
    about = {"first_row": first_row, "settings": settings}
    about = json.dumps(about | {"sha256": tensors_hash(tensors)})
    path = folder / f"rows_{first_row:06d}.safetensors"
    return write_atomic(path, save(tensors, {METADATA: about}))


def tensors_hash(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 of all that a shard says."""
    digest = hashlib.sha256()
    for name in TENSORS:
        values = tensors[name].contiguous().view(torch.uint8)
        digest.update(values.numpy().tobytes())
    return digest.hexdigest()


def read_shard(path: Path) -> tuple[dict[str, Any], int, list[int]]:
    """Settings, first row, and the positions of each row.

    Raises CourseError for a file that was cut or whose bytes have changed.
    """
    try:
        with safe_open(path, "pt") as tensors:
            about = json.loads(tensors.metadata()[METADATA])
            parts = {name: tensors.get_tensor(name) for name in TENSORS}
        lengths = parts["lengths"].tolist()
        if tensors_hash(parts) != about["sha256"]:
            raise ValueError("its content has changed")
        settings, first_row = about["settings"], about["first_row"]
        if settings["format"] != FORMAT:
            raise ValueError(f"not of format {FORMAT}")
    except (SafetensorError, ValueError, TypeError, LookupError,
            RuntimeError) as error:  # fmt: skip
        raise broken(path, f"is no shard of a cache ({error})") from error
    return settings, first_row, lengths


def broken(path: Path, reason: str) -> CourseError:
    folder = path.parent.name
    cure = f"Delete the folder {folder} and make the cache again."
    return CourseError(f"{folder}/{path.name} {reason}. {cure}")
