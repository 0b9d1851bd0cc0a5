"""What the course fetches from the hub: revisions, licences, sizes.

A branch of the hub moves; a revision does not. Standard library only.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class HubItem:
    """A model or data set; megabytes: its weights or files, to download."""

    revision: str
    licence: str
    megabytes: int


# Megabytes of models are 2 bytes for each stored parameter (bfloat16); the
# Qwen3 below 4B also store their tied head.
HUB = {
    "Qwen/Qwen3-4B-Thinking-2507": HubItem(
        "768f209d9ea81521153ed38c47d515654e938aea", "Apache-2.0", 8045
    ),
    "Qwen/Qwen3-1.7B": HubItem(
        "70d244cc86ccca08cf5af4e1e306ecf908b1ad5e", "Apache-2.0", 4063
    ),
    "Qwen/Qwen3-0.6B": HubItem(
        "c1899de289a04d12100db370d81485cdf75e47ca", "Apache-2.0", 1503
    ),
    "unsloth/gemma-3-1b-it": HubItem(
        "5b11413a10db4e486ef16a20101fd028f8f2499c",
        "Gemma terms of use, https://ai.google.dev/gemma/terms",
        2000,
    ),
    "unsloth/gemma-3-270m-it": HubItem(
        "23cf460f6bb16954176b3ddcc8d4f250501458a9",
        "Gemma terms of use, https://ai.google.dev/gemma/terms",
        536,
    ),
    "openai/gsm8k": HubItem(
        "e53f048856ff4f594e959d75785d2c2d37b678ee", "MIT", 5
    ),
}


def revision_of(name: str) -> str | None:
    """The pinned revision of a hub id; None for any other id or a folder."""
    return HUB[name].revision if name in HUB else None


def megabytes_of(names: list[str]) -> int:
    """What of these has to be downloaded, each once; folders count nothing."""
    return sum(HUB[name].megabytes for name in set(names) if name in HUB)
