"""The measured peaks of `bench --only memory`, one file for each device."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from helpers.profiles import DATA, write_atomic
from helpers.results import package_versions
from helpers.scale.planner import (
    CHUNK,
    PROMPT,
    PlanError,
    load_shape,
    plan_memory,
)

MIB = 2**20
MEASURED = DATA / "results" / "memory"


@dataclass(frozen=True)
class Point:
    """One run to measure; the fields are those of `plan_memory`."""

    model: str
    method: str = "sft"
    bits: int = 4
    rank: int = 16
    batch: int = 1
    length: int = 256
    checkpointing: bool = False
    chunk: int = CHUNK
    prompt: int = PROMPT
    teacher: str | None = None

    def expected(self) -> int:
        """Bytes that the planner expects."""
        settings = asdict(self)
        shape = load_shape(settings.pop("model"))
        if self.teacher:
            settings["teacher"] = load_shape(self.teacher)
        return plan_memory(shape, **settings).total

    def __str__(self) -> str:
        text = f"{self.model}, {self.method}, {self.bits} bits"
        if self.method != "generate":
            text += f", rank {self.rank}" if self.rank else ", all weights"
        text += f", {self.batch} x {self.length}"
        if self.checkpointing:
            text += ", checkpointing"
        return text + (f", teacher {self.teacher}" if self.teacher else "")


SMALL, QWEN, SMOL = "gemma-3-270m-it", "Qwen3-0.6B", "SmolLM2-135M-Instruct"
# Bytes a logit, in helpers.scale.planner, were read off some of these ...
FITTED = (
    Point(SMALL),
    Point(SMALL, batch=2, length=512),
    Point(SMALL, bits=16, batch=2),
    Point(SMALL, rank=64, length=512, checkpointing=True),
    Point("gemma-3-1b-it"),
    Point("gemma-3-1b-it", batch=2, checkpointing=True),
    Point(QWEN),
    Point(QWEN, rank=64, batch=2),
    Point(QWEN, bits=16, length=512, checkpointing=True),
    Point(SMOL, batch=4),
    Point(SMOL, bits=16, rank=0),
    Point("Llama-3.2-1B-Instruct"),
    Point(QWEN, "logit", teacher=QWEN),
    Point(QWEN, "logit", teacher="Qwen3-1.7B"),
    Point(QWEN, "logit_chunked", chunk=64, teacher="Qwen3-1.7B"),
    Point(QWEN, "logit_chunked", batch=2, teacher=QWEN),
    Point(QWEN, "generate", bits=16, batch=16, prompt=248),
    Point(QWEN, "generate", batch=8, length=512, prompt=504),
    Point(SMALL, "generate", bits=16, batch=16, length=1024, prompt=1016),
)
# ... and these were measured when nothing was changed any more.
HELD_OUT = (
    Point("Qwen3-1.7B", length=192),
    Point("DeepSeek-R1-Distill-Qwen-1.5B", length=192, checkpointing=True),
    Point(SMOL, rank=32, batch=8, checkpointing=True),
    Point(SMALL, "logit", length=192, teacher="gemma-3-1b-it"),
    Point("gemma-3-1b-it", "generate", batch=8, length=512, prompt=504),
    Point(SMALL, length=1536),
    Point("gemma-3-1b-it", length=2048, checkpointing=True),
    Point(
        QWEN, "logit_chunked", length=2048, checkpointing=True, teacher=QWEN
    ),
)
POINTS = FITTED + HELD_OUT


@dataclass(frozen=True)
class Measured:
    """A point and the bytes that it needed at its peak on a device."""

    point: Point
    peak: int
    device: str

    @property
    def expected(self) -> int:
        """Bytes that the planner expects."""
        return self.point.expected()

    @property
    def held_out(self) -> bool:
        """Was it measured only after the planner was finished?"""
        return self.point in HELD_OUT

    @property
    def error(self) -> float:
        """Expected over measured, less 1: 0.05 is 5% too much."""
        return self.expected / self.peak - 1


def device_file(device: str, directory: Path | None = None) -> Path:
    """Where the points of a device are kept."""
    name = re.sub(r"[^a-z0-9]+", "_", device.lower()).strip("_")
    return (directory or MEASURED) / f"{name}.json"


def write_points(
    points: Iterable[Measured], directory: Path | None = None
) -> Path:
    """All points of one device, whole or not at all."""
    points = list(points)
    content = {
        "device": points[0].device,
        "command": "python3 -m helpers bench --only memory",
        "versions": package_versions(),
        "points": [asdict(p.point) | {"peak": p.peak} for p in points],
    }
    path = device_file(points[0].device, directory)
    write_atomic(path, json.dumps(content, indent=1) + "\n")
    return path


def read_points(directory: Path | None = None) -> list[Measured]:
    """Every measured point, the CPU's first; PlanError for a broken file."""
    found = []
    for path in sorted((directory or MEASURED).glob("*.json")):
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            for row in content["points"]:
                peak = row.pop("peak")
                found.append(Measured(Point(**row), peak, content["device"]))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise PlanError(
                f"{path.name} is broken ({error}). Delete it and measure "
                "again: python3 -m helpers bench --only memory"
            ) from error
    return found
