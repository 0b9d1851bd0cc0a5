"""What the repaired halves of notebook 11 scored: tables and contrasts."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from helpers import CourseError
from helpers.files.disk import read_json
from helpers.profiles import DATA
from helpers.rebuild.calibration import calibration_error
from helpers.rebuild.contrasts import Contrast, Seeds, family, residuals

RESULTS = DATA / "results" / "half_gemma"
NAMES = {
    "teacher": "teacher",
    "nf4": "teacher in 4 bits",
    "tuned": "teacher, tuned on the texts",
    "untrained": "half, no repair",
    "text": "text",
    "logits": "logits",
    "logits_t2": "logits, T = 2",
    "logits_cached": "logits, top 16",
    "states": "states",
    "text_states": "text + states",
    "text_relations": "text + relations",
    "logits_states": "logits + states",
    "tuned_logits": "logits, tuned teacher",
    "tuned_logits_states": "logits + states, tuned teacher",
    "nf4_logits_states": "logits + states, 4-bit teacher",
}
PRIMARY = (  # of data/results/half_gemma/PLAN.md
    ("text", "logits"),
    ("text", "text_states"),
    ("logits", "logits_states"),
    ("logits", "logits_t2"),
    ("logits", "logits_cached"),
)
YARDSTICKS = {"nll": "loss on the text", "kl": "KL from the teacher"}
HEADER = (
    "| lesson | tokens read | seeds | loss on the text | KL from the teacher "
    "| likeliest token agrees | ECE | seconds |\n"
    "|---|---:|---:|---:|---:|---:|---:|---:|"
)
COMMAND = (
    "python3 -m helpers half --profile laptop --lesson logits_states --seed 7"
)
NO_RESULTS = f"No results yet. One row of one seed is made by `{COMMAND}`."


@dataclass(frozen=True)
class Half:
    """One lesson at one budget: a run a seed, as `helpers half` wrote it."""

    lesson: str
    steps: int
    runs: tuple[dict[str, Any], ...]

    @property
    def name(self) -> str:
        return NAMES[self.lesson]

    @property
    def tokens(self) -> int:
        curve = self.runs[0]["curve"]
        return int(curve[-1]["tokens"]) if curve else 0

    def values(self, score: str, kind: str | None = None) -> np.ndarray:
        """(seeds, texts), so that the mean is the score per token.

        score: nll, kl or agree; kind: gsm8k or reference, or both.
        """
        rows = []
        for run in self.runs:
            kinds = [kind] if kind else list(run["texts"])
            sums, tokens = (
                np.concatenate([run["texts"][k][name] for k in kinds])
                for name in (score, "tokens")
            )
            rows.append(residuals(sums, tokens))
        return np.array(rows)

    def seeds(self, score: str) -> Seeds:
        numbers = [run["seed"] for run in self.runs]
        return dict(zip(numbers, self.values(score), strict=True))

    def mean(self, score: str, kind: str | None = None) -> float:
        return float(self.values(score, kind).mean())

    @property
    def bins(self) -> np.ndarray:
        """Of `tenths`, all seeds together."""
        return np.sum([run["bins"] for run in self.runs], axis=0).T

    @property
    def calibration(self) -> np.ndarray:
        """Bins of ten percent: tokens, mean confidence, share of right."""
        count = np.maximum(self.bins[0], 1)
        return np.stack([count, *self.bins[1:] / count])

    @property
    def ece(self) -> float:
        """The expected calibration error of all seeds together."""
        return calibration_error(self.bins)


def read_half(path: Path) -> dict[str, Any]:
    """One file, all that the tables ask of it tried."""
    row = read_json(path)
    try:
        half = Half(row["lesson"], int(row["steps"]), (row,))
        scores = [half.mean(name) for name in ("nll", "kl", "agree")]
        numbers = [half.ece, half.tokens, row["seconds"], row["seed"]]
        if not np.isfinite([*scores, *numbers]).all() or not half.name:
            raise ValueError("a score is no number")
        path_of(half, "kl")
    except (LookupError, ValueError, TypeError, AttributeError,
            ArithmeticError) as error:  # fmt: skip
        raise CourseError(
            f"{path.name} is no result of `helpers half` ({error!r}). Delete "
            "it, and measure it again."
        ) from error
    return row


def read_halves(folder: Path = RESULTS) -> list[Half]:
    """By budget, then in the order of NAMES; CourseError for a broken file."""
    rows = [read_half(path) for path in sorted(folder.glob("*-seed*.json"))]
    keys = {(row["steps"], row["lesson"]) for row in rows}
    return [
        Half(lesson, steps, tuple(
            row for row in rows
            if (row["steps"], row["lesson"]) == (steps, lesson)
        ))
        for steps in sorted({steps for steps, _ in keys})
        for lesson in NAMES
        if (steps, lesson) in keys
    ]  # fmt: skip


SHOWN = ("text", "logits", "states", "text_states", "logits_states")


def overview(halves: Sequence[Half]) -> list[Half]:
    """What the README shows: the models, and five lessons at each budget."""
    models = [h for h in halves if h.lesson in ("teacher", "untrained")]
    budgets = sorted({h.steps for h in halves if h.lesson == "text_states"})
    return models + [
        half
        for half in halves
        if half.lesson in SHOWN and half.steps in budgets
    ]


def path_of(half: Half, score: str) -> list[tuple[float, float]]:
    """(tokens read, the seeds' mean on validation texts), a curve."""
    curves = zip(*(run["curve"] for run in half.runs), strict=True)
    return [
        (points[0]["tokens"], float(np.mean([p[score] for p in points])))
        for points in curves
    ]


def find(halves: Sequence[Half], lesson: str, steps: int) -> Half | None:
    """That lesson at that budget, if it was run."""
    fits = [h for h in halves if (h.lesson, h.steps) == (lesson, steps)]
    return fits[0] if fits else None


def halves_markdown(halves: Sequence[Half]) -> str:
    """A row for every half; NLL, KL per token in nats."""
    rows = [
        f"| {half.name} | {half.tokens:,} | {len(half.runs)} | "
        f"{half.mean('nll'):.3f} | {half.mean('kl'):.3f} | "
        f"{half.mean('agree'):.1%} | {half.ece:.3f} | "
        f"{np.mean([run['seconds'] for run in half.runs]):.0f} |"
        for half in halves
    ]
    return "\n".join([HEADER, *rows]) if rows else NO_RESULTS


def contrasts(
    halves: Sequence[Half],
    steps: int,
    pairs: Sequence[tuple[str, str]] = PRIMARY,
) -> list[Contrast]:
    """All pairs by both yardsticks, as one family; negative is better."""
    at = {half.lesson: half for half in halves if half.steps == steps}
    return family(
        (
            (at[one].name, at[other].name, words,
             at[one].seeds(score), at[other].seeds(score))
            for one, other in pairs
            if one in at and other in at
            for score, words in YARDSTICKS.items()
        ),
        unit="nats",
    )  # fmt: skip
