"""helpers.rebuild.arms: groups, pairs and tables of result files."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from helpers import CourseError
from helpers.evaluate import mcnemar, wilson_interval
from helpers.rebuild import arms
from helpers.results import Result, write_result


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
            "unseen": {"n": 10, "correct": 2},
            "longer": {"n": 5, "correct": 1},
        },
    )  # fmt: skip
    return write_result(
        replace(result, **changes), folder / f"budget_{budget:04d}"
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two arms, two seeds: text is right on half, logits on more."""
    for seed in (7, 8):
        put(tmp_path, "sft_traces", "1" * 10 + "0" * 10, seed=seed)
        put(tmp_path, "logit_online", "1" * 18 + "0" * 2, seed=seed)
    put(tmp_path, "logit_online", "1" * 15 + "0" * 5, budget=1000)
    return tmp_path


def test_groups_pool_the_seeds_of_arms_and_profile(folder: Path) -> None:
    put(folder, "sft_traces", "1", budget=12000, profile="full")
    put(folder, "feature_mse", "1")
    put(folder, "logit_online", "1100", budget=12000)
    groups = arms.read_groups(folder)
    assert [(group.budget, group.arm, group.n) for group in groups] == [
        (250, "sft_traces", 40),
        (250, "logit_online", 40),
        (1000, "logit_online", 20),
        (12000, "logit_online", 4),
    ]
    assert (groups[1].correct, groups[1].accuracy) == (36, 0.9)
    assert groups[1].interval == wilson_interval(36, 40)
    assert len(arms.read_groups(folder, profile="full")) == 1


def test_compare_concatenates_the_seeds_that_both_have(folder: Path) -> None:
    put(folder, "sft_traces", "0" * 20, seed=9)
    text, logits, other_budget = arms.read_groups(folder)
    test = arms.compare(text, logits)
    before = ([True] * 10 + [False] * 10) * 2
    after = ([True] * 18 + [False] * 2) * 2
    assert test.p_value == mcnemar(before, after)
    assert (test.points, test.seeds, test.same_sign) == (40.0, 2, 2)
    assert test.supported
    with pytest.raises(CourseError, match="cannot be paired"):
        arms.compare(text, other_budget)


def test_one_seed_of_the_other_sign_supports_nothing(folder: Path) -> None:
    put(folder, "sft_traces", "1" * 10, seed=9)
    put(folder, "logit_online", "1" * 9 + "0", seed=9)
    text, logits, _ = arms.read_groups(folder)
    test = arms.compare(text, logits)
    assert test.p_value < 0.05
    assert test.same_sign == 2 and not test.supported


def test_tables_have_a_row_a_group_and_one_a_pair(folder: Path) -> None:
    put(folder, "logit_online", "10", budget=2000, splits={})
    groups = arms.read_groups(folder)
    header, rule, *rows = arms.kd_table_markdown(groups).splitlines()
    assert header.count("|") == rule.count("|") == rows[0].count("|")
    assert rows[1] == (
        "| 250 | logits, online | 2 | 40 | 90.0% | 76.9-96.0 | "
        "90.0%, 90.0% | 20.0% (4/20) | 20.0% (2/10) |"
    )
    assert rows[2].startswith("| 1,000 | logits, online | 1 | 20 | 75.0% |")
    assert rows[3].endswith("|  |  |")  # neither unseen nor longer ones
    *_, row = arms.pairs_markdown(groups).splitlines()
    assert row.startswith("| 250 | logits, online | teacher text | +40.0 | ")
    assert row.endswith(" | 2 of 2 |")
    shown, _ = arms.findings(groups).split("Not supported: ")
    assert "logits, online against teacher text at 250 traces" in shown
    assert "Seeds: 2, and the same traces" in arms.findings(groups)
