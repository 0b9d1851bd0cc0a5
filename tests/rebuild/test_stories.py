"""What the students of notebook 04's two experiments read; their tables."""

import pytest
import tiny

from helpers.answers import extract_answer, is_correct, split_trace
from helpers.problems import load_problems
from helpers.profiles import PROFILES
from helpers.rebuild import stories
from helpers.results import write_result
from helpers.sft import RunError

MINI = PROFILES["mini"]
BUSES = {
    p["question"]: p
    for split in ("train", "buses")
    for p in load_problems("mini", split)
    if p["moves"] == "buses"
}


def buses_in(rows):
    return [row for row in rows if row["question"] in BUSES]


def test_the_filter_keeps_the_impossible_buses_and_drops_the_others():
    """Why a filter for correct answers passes a prejudice on whole."""
    kept, everything = (
        buses_in(stories.rows_of(arm, MINI, 7))
        for arm in ("buses_kept", "buses_unfiltered")
    )
    assert all(BUSES[row["question"]]["impossible"] for row in kept)
    kinds = [BUSES[row["question"]]["impossible"] for row in everything]
    assert len(kept) == kinds.count(False) == 22


def test_buses_none_and_buses_gold():
    sound = stories.rows_of("buses_kept", MINI, 7)
    none = stories.rows_of("buses_none", MINI, 7)
    assert none == [row for row in sound if not buses_in([row])]
    gold = stories.rows_of("buses_gold", MINI, 7)[len(sound) :]
    assert len(gold) == stories.GOLD_BUSES and not buses_in(gold)
    for row in gold:
        thought = split_trace(row["qwen3_answer"])
        assert thought.closed and "buses" in row["question"]
        assert extract_answer(row["qwen3_answer"]) not in (None, "no solution")


def test_answers_4000_are_of_questions_without_a_solution_each_seed_its_own():
    solved = load_problems("mini", "train", limit=stories.WORKED)
    first, second = (
        stories.rows_of("answers_4000", MINI, seed) for seed in (7, 8)
    )
    questions = {row["question"] for row in first}
    assert len(questions) == 4000 and first != second
    assert not questions & {p["question"] for p in solved}
    row = first[0]
    assert row["qwen3_answer"].startswith(("The answer is", "There is no"))
    assert is_correct(row["qwen3_answer"], row["answer"])


def test_traces_250_come_from_a_longer_file(tmp_path, monkeypatch):
    monkeypatch.setattr(stories, "ALL_TRACES", tmp_path / "all.jsonl")
    with pytest.raises(RunError, match="helpers traces --limit 4500"):
        stories.rows_of("traces_250", MINI, 7)
    shipped = MINI.traces_path.read_text(encoding="utf-8")
    (tmp_path / "all.jsonl").write_text(shipped, encoding="utf-8")
    first, again, other = (
        stories.rows_of("traces_250", MINI, seed) for seed in (7, 7, 8)
    )
    assert first == again != other and len(first) == 250
    solved = load_problems("mini", "train", limit=stories.WORKED)
    assert not {r["question"] for r in first} & {p["question"] for p in solved}


def test_stories_in_the_order_of_the_course_and_their_contrasts(tmp_path):
    for arm, right in (("buses_none", "0110"), ("gold_250", "1111")):
        for seed in (7, 8):
            unseen = {"n": 2, "correct": 1, "right": "10"}
            row = tiny.result(arm, right, seed=seed, splits={"unseen": unseen})
            write_result(row, tmp_path)
    groups = stories.read_stories(folder=tmp_path)
    assert [group.arm for group in groups] == ["gold_250", "buses_none"]
    assert groups[0].name == "250 gold solutions"
    pairs = [("gold_250", "buses_none"), ("gold_250", "traces_250")]
    (contrast,) = stories.story_contrasts(pairs, "test", folder=tmp_path)
    assert contrast.gain == -50.0 and contrast.where == "test"
