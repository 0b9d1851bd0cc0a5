"""The measured peaks of `bench --only memory`, one file for each device."""

import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from helpers import CourseError
from helpers.files.disk import write_atomic
from helpers.profiles import DATA
from helpers.results import package_versions
from helpers.scale.planner import CHUNK, PROMPT, plan_memory
from helpers.scale.shapes import load_shape

MIB = 2**20
MEASURED = DATA / "results" / "memory"
COMMAND = "python3 -m helpers bench --only memory"


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

    def __str__(self) -> str:
        text = f"{self.model}, {self.method}, {self.bits} bits"
        if self.method != "generate":
            text += f", rank {self.rank}" if self.rank else ", all weights"
        text += f", {self.batch} x {self.length}"
        if self.checkpointing:
            text += ", checkpointing"
        return text + (f", teacher {self.teacher}" if self.teacher else "")


# Bytes a logit, in helpers.scale.planner, were read off some of the fitted
# points; the held-out ones were measured when nothing was changed any more.
LISTED = json.loads(Path(__file__).with_suffix(".json").read_text("utf-8"))
HELD_OUT = tuple(Point(**row) for row in LISTED["held_out"])
POINTS = tuple(Point(**row) for row in LISTED["fitted"]) + HELD_OUT


@dataclass(frozen=True)
class Measured:
    """A point and the bytes that it needed at its peak on a device."""

    point: Point
    peak: int
    device: str

    @property
    def expected(self) -> int:
        """Bytes that the planner expects."""
        settings = asdict(self.point)
        shape = load_shape(settings.pop("model"))
        if self.point.teacher:
            settings["teacher"] = load_shape(self.point.teacher)
        return plan_memory(shape, **settings).total

    @property
    def held_out(self) -> bool:
        """Was it measured only after the planner was finished?"""
        return self.point in HELD_OUT

    @property
    def error(self) -> float:
        """Expected over measured, less 1: 0.05 is 5% too much."""
        return self.expected / self.peak - 1


def write_points(points: Sequence[Measured]) -> Path:
    """All points of one device, in a file named after it."""
    device = points[0].device
    content = {
        "device": device,
        "command": COMMAND,
        "versions": package_versions(),
        "points": [asdict(p.point) | {"peak": p.peak} for p in points],
    }
    name = re.sub(r"[^a-z0-9]+", "_", device.lower()).strip("_")
    path = MEASURED / f"{name}.json"
    return write_atomic(path, json.dumps(content, indent=1) + "\n")


def read_points() -> list[Measured]:
    """Every measured point, the CPU's first; CourseError if broken."""
    points = []
    for path in sorted(MEASURED.glob("*.json")):
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            for row in content["points"]:
                peak = row.pop("peak")
                points.append(Measured(Point(**row), peak, content["device"]))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise CourseError(
                f"{path.name} is broken ({error}). Delete it and measure "
                f"again: {COMMAND}"
            ) from error
    return points
