"""Groups of result files, their tables, and contrasts between them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from helpers.evaluate import compare_arms
from helpers.rebuild import arms
from helpers.rebuild.contrasts import family, findings, interval, residuals
from helpers.results import Result, write_result

TEXT, LOGITS = "1" * 10 + "0" * 10, "1" * 18 + "0" * 2


def put(
    folder: Path, arm: str, right: str, *, budget: int = 250, seed: int = 7,
    **changes: Any,
) -> Path:  # fmt: skip
    """A result file as `helpers distill --write` makes it."""
    result = Result(
        arm=arm, profile="mini", seed=seed, n=len(right),
        correct=right.count("1"), seconds=1.0, peak_memory_mb=None,
        command="python3 -m helpers distill", right=right,
        splits={
            "unseen": {"n": 10, "correct": 2, "right": "1100000000"},
            "longer": {"n": 5, "correct": 1},  # an older file: no flags
        },
    )  # fmt: skip
    return write_result(
        replace(result, **changes), folder / f"budget_{budget:04d}"
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two arms, two seeds: text is right on half, logits on more."""
    for seed in (7, 8):
        put(tmp_path, "sft_traces", TEXT, seed=seed)
        put(tmp_path, "logit_online", LOGITS, seed=seed)
    put(tmp_path, "logit_online", "1" * 15 + "0" * 5, budget=1000)
    return tmp_path


def test_groups_hold_the_seeds_of_arms_and_profile(folder: Path) -> None:
    put(folder, "sft_traces", "1", budget=12000, profile="full")
    put(folder, "feature_mse", "1")
    groups = arms.read_groups(folder)
    assert [(g.budget, g.arm, len(g.results)) for g in groups] == [
        (250, "sft_traces", 2),
        (250, "logit_online", 2),
        (1000, "logit_online", 1),
    ]
    assert groups[1].told()[0] == 90.0
    assert groups[1].points("unseen")[8].mean() == 20.0
    assert groups[1].told("longer") is None
    assert len(arms.read_groups(folder, profile="full")) == 1


def test_family_takes_the_seeds_that_both_have(folder: Path) -> None:
    put(folder, "sft_traces", "0" * 20, seed=9)
    (contrast,) = arms.kd_contrasts(arms.read_groups(folder))
    marks = [[100 * (m == "1") for m in text] for text in (TEXT, LOGITS)]
    wanted = compare_arms([marks[0]] * 2, [marks[1]] * 2)
    told = (contrast.gain, contrast.low, contrast.high, contrast.p_value)
    assert told == pytest.approx(wanted)
    assert contrast.sure and contrast.gain == 40.0


def test_family_is_corrected_by_holm() -> None:
    generator = np.random.default_rng(2)
    base = {seed: generator.random(50) for seed in (1, 2, 3)}
    pairs = [
        ("a", "b", str(shift), base,
         {seed: scores + shift + 0.1 * generator.random(50)
          for seed, scores in base.items()})
        for shift in (-0.05, 0.0, 0.2)
    ]  # fmt: skip
    raw = [
        compare_arms(*[list(side.values()) for side in pair[3:]])[-1]
        for pair in pairs
    ]
    told = [contrast.p_value for contrast in family(pairs)]
    order = np.argsort(raw)
    wanted = np.maximum.accumulate(
        np.minimum(1, np.array(raw)[order] * [3, 2, 1])
    )
    assert np.array(told)[order] == pytest.approx(wanted)
    assert family([("a", "b", "x", base, {9: base[1]})]) == []


def test_findings_say_what_is_told_from_zero_and_what_not() -> None:
    one = {seed: np.arange(40.0) % 7 for seed in (1, 2)}
    far = {seed: scores + 5 for seed, scores in one.items()}
    near = {seed: scores[::-1] for seed, scores in one.items()}
    told = findings(
        family([("a", "b", "here", one, far), ("a", "c", "here", one, near)])
    )
    sure, rest = told.split("**Not told from 0:**")
    assert "b less a, here: +5.0 points" in sure and "(1 of 2," in sure
    assert "c less a, here" in rest
    assert findings([]).count("- none") == 2


def test_interval_of_equal_seeds_is_that_of_the_problems() -> None:
    scores = np.array([0.0, 100.0, 100.0, 100.0])
    mean, low, high = interval({7: scores})
    assert low < mean == 75.0 < high


def test_residuals_have_the_mean_per_unit_and_no_outlier_by_size() -> None:
    assert residuals([10, 90], [10, 30]).mean() == pytest.approx(100 / 40)
    assert residuals([20, 60], [10, 30]) == pytest.approx([2.0, 2.0])


def test_tables_have_a_row_a_group(folder: Path) -> None:
    groups = arms.read_groups(folder)
    header, rule, *rows = arms.groups_markdown(groups).splitlines()
    assert header.count("|") == rule.count("|") == rows[0].count("|")
    assert rows[1].startswith("| 250 | logits, online | 2 | 90.0% (")
    assert rows[1].endswith(" | 20.0% (0.0 to 50.2) |  |")
    assert rows[2].startswith("| 1,000 | logits, online | 1 | 75.0% (")
    alone = [replace(group, budget=0) for group in groups[:1]]
    assert "traces" not in arms.groups_markdown(alone).splitlines()[0]
    assert "helpers distill" in arms.groups_markdown([])
