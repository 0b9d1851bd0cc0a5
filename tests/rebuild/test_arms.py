"""Groups of result files, their tables, and contrasts between them."""

from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny

from helpers.evaluate import compare_arms
from helpers.rebuild import arms
from helpers.rebuild.contrasts import family, findings, interval, residuals
from helpers.rebuild.verdict import verdict
from helpers.results import write_result

TEXT, LOGITS = "1" * 10 + "0" * 10, "1" * 18 + "0" * 2


def put(
    folder: Path, arm: str, right: str, *, budget: int = 250, **changes: Any
) -> Path:
    """A result file as `helpers compare --write` makes it."""
    splits = {
        "unseen": {"n": 10, "correct": 2, "right": "1100000000"},
        "longer": {"n": 5, "correct": 1},  # an older file: no flags
    }
    result = tiny.result(arm, right, splits=splits, **changes)
    return write_result(result, folder / f"budget_{budget:04d}")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two arms, two seeds: text is right on half, logits on more."""
    for seed in (7, 8):
        put(tmp_path, "text", TEXT, seed=seed)
        put(tmp_path, "logits_t2", LOGITS, seed=seed)
    put(tmp_path, "logits_t2", "1" * 15 + "0" * 5, budget=1000)
    return tmp_path


def test_groups_hold_the_seeds_of_arms_and_profile(folder: Path) -> None:
    put(folder, "text", "1", budget=12000, profile="full")
    put(folder, "someone", "1")
    groups = arms.read_groups(folder)
    assert [(g.budget, g.arm, len(g.results)) for g in groups] == [
        (250, "text", 2),
        (250, "logits_t2", 2),
        (1000, "logits_t2", 1),
    ]
    assert groups[1].told()[0] == 90.0
    assert groups[1].points("unseen")[8].mean() == 20.0
    assert groups[1].told("longer") is None
    assert len(arms.read_groups(folder, profile="full")) == 1


def test_family_takes_the_seeds_that_both_have(folder: Path) -> None:
    put(folder, "text", "0" * 20, seed=9)
    (contrast,) = arms.kd_contrasts(arms.read_groups(folder))
    marks = [[100 * (m == "1") for m in text] for text in (TEXT, LOGITS)]
    wanted = compare_arms([marks[0]] * 2, [marks[1]] * 2)
    told = (contrast.gain, contrast.low, contrast.high, contrast.p_value)
    assert told == pytest.approx(wanted)
    assert contrast.sure and contrast.gain == 40.0


def test_family_is_corrected_by_holm() -> None:
    generator = np.random.default_rng(2)
    base = {seed: generator.random(50) for seed in (1, 2, 3)}
    pairs, raw = [], []
    for shift in (-0.05, 0.0, 0.2):
        other = {
            seed: scores + shift + 0.1 * generator.random(50)
            for seed, scores in base.items()
        }
        pairs.append(("a", "b", str(shift), base, other))
        raw.append(compare_arms([*base.values()], [*other.values()])[-1])
    told = np.array([contrast.p_value for contrast in family(pairs)])
    order = np.argsort(raw)
    corrected = np.minimum(1, np.array(raw)[order] * [3, 2, 1])
    wanted = np.maximum.accumulate(corrected)
    assert told[order] == pytest.approx(wanted)
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


def test_intervals_and_residuals_by_hand() -> None:
    """Equal seeds: that of the problems. No outlier is one by its size."""
    mean, low, high = interval({7: np.array([0.0, 100.0, 100.0, 100.0])})
    assert low < mean == 75.0 < high
    assert residuals([10, 90], [10, 30]).mean() == pytest.approx(100 / 40)
    assert residuals([20, 60], [10, 30]) == pytest.approx([2.0, 2.0])


def test_tables_have_a_row_a_group(folder: Path) -> None:
    groups = arms.read_groups(folder)
    header, rule, *rows = arms.groups_markdown(groups).splitlines()
    assert header.count("|") == rule.count("|") == rows[0].count("|")
    assert rows[1].startswith("| 250 | logits, T = 2 | 2 | 90.0% (")
    assert rows[1].endswith(" | 20.0% (0.0 to 50.2) |  |")
    assert rows[2].startswith("| 1,000 | logits, T = 2 | 1 | 75.0% (")
    alone = [replace(group, budget=0) for group in groups[:1]]
    assert "traces" not in arms.groups_markdown(alone).splitlines()[0]
    assert "helpers compare" in arms.groups_markdown([])


def test_budgets_have_a_row_an_arm(folder: Path) -> None:
    put(folder, "teacher", "1" * 20, budget=0)
    groups = arms.read_groups(folder)
    table = arms.budgets_markdown(groups, ("teacher", "text", "logits_t2"))
    header, _, teacher, text, logits = table.splitlines()
    assert header == "| target | 250 traces | 1,000 traces | seeds |"
    assert teacher.count("100.0% (") == 2
    assert text.startswith("| teacher text | 50.0% (")
    assert text.endswith(" |  | 2, 0 |") and logits.endswith(" | 2, 1 |")


def primary(folder: Path, **accuracy: float) -> str:
    """The verdict on arms of these accuracies, 0.5 where none is given."""
    generator = np.random.default_rng(0)
    names = {arm for pair in arms.PRIMARY for arm in pair}
    for arm, budget, seed in product(names, arms.TESTED, range(5)):
        right = generator.random(400) < accuracy.get(arm, 0.5)
        marks = "".join("01"[int(flag)] for flag in right)
        put(folder, arm, marks, budget=budget, seed=seed)
    groups = arms.read_groups(folder)
    assert len(arms.kd_contrasts(groups)) == 14
    return verdict(groups)


def test_verdict_wants_all_rivals_beaten(tmp_path: Path) -> None:
    told = primary(tmp_path / "a", logits_t2=0.8)
    assert told.count("is ahead of all three rivals") == 2
    assert "**logits, T = 2, against teacher text: ahead at both" in told
    assert "**logits, T = 2, against gold text: ahead at both" in told
    told = primary(tmp_path / "b", logits_t2=0.7, permuted_t2=0.8)
    assert told.count("permuted logits, T = 2 did *better* than") == 2
    assert "dark knowledge" not in told
    told = primary(tmp_path / "c")
    assert told.count("not told apart.**") == 3
    assert told.count("no mechanism may be named") == 2
    told = primary(tmp_path / "d", text=0.8, logits=0.8)
    assert "**logits, T = 2, against teacher text: behind at both" in told
    assert "**logits, against sampled text: ahead at both" in told
