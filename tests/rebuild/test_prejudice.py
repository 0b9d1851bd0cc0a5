"""A wrong teacher and own text: what is read, what is scored and kept."""

from dataclasses import replace

import tiny

from helpers.answers import extract_answer
from helpers.problems import load_problems
from helpers.profiles import PROFILES
from helpers.rebuild import prejudice
from helpers.rebuild.lessons import Setting
from helpers.results import read_results

MINI = PROFILES["mini"]


def test_buses_are_new_half_solvable_and_the_rest_holds_none():
    known = {
        problem["question"]
        for split in ("train", "buses")
        for problem in load_problems("mini", split)
    }
    rows = prejudice.rows_of("own_buses", MINI, 7)
    assert len(rows) == prejudice.ASKED
    assert not known & {row["question"] for row in rows}
    answers = [extract_answer(row["qwen3_answer"]) for row in rows]
    assert answers.count("no solution") == prejudice.ASKED / 2
    assert rows == prejudice.rows_of("gold_buses", MINI, 7)
    assert rows != prejudice.rows_of("own_buses", MINI, 8)
    sound, others = (
        [row["question"] for row in prejudice.rows_of(arm, MINI, 7)]
        for arm in ("no_bus", "own_others")
    )
    assert not any("Three buses" in question for question in sound)
    assert set(others) < set(sound) and len(others) == prejudice.ASKED


def test_a_seed_is_taught_scored_and_not_made_twice(tmp_path, monkeypatch):
    """With tiny models, four rows and eight problems of each split."""
    profile = replace(tiny.pair(tmp_path), name="mini")
    few = Setting(1e-3, 16)
    for name, value in {
        "PREJUDICE": tmp_path,
        "LESSON": few,
        "setting_of": lambda *_: few,
        "lab_profile": lambda: profile,
        "rows_of": lambda *_: tiny.traces(4),
        "load_problems": lambda *asked, **_: load_problems(*asked, limit=8),
    }.items():
        monkeypatch.setattr(prejudice, name, value)
    prejudice.main(["--seeds", "7"])
    results = {result.arm: result for result in read_results(tmp_path)}
    assert set(results) == set(prejudice.ARMS)
    kinds = set(prejudice.KINDS) - {"test"}
    for result in results.values():
        assert {result.splits[kind]["n"] for kind in kinds} == {4}
        assert result.n == 8
    monkeypatch.setattr(prejudice, "teach", None)  # it would be called
    prejudice.main(["--seeds", "7"])
