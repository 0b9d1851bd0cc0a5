"""What the students of 04, 05 and 08 read; what is scored, kept and told."""

from dataclasses import replace

import pytest
import tiny

from helpers.answers import extract_answer, is_correct, split_trace
from helpers.evaluate import evaluate
from helpers.problems import load_problems
from helpers.profiles import PROFILES
from helpers.rebuild import experiments, prejudice, stories
from helpers.rebuild.experiments import gold_text, train_arm
from helpers.rebuild.lessons import Setting
from helpers.results import read_results, write_result
from helpers.sft import RunError

MINI = PROFILES["mini"]
BUSES = {
    p["question"]: p
    for split in ("train", "buses")
    for p in load_problems("mini", split)
    if p["moves"] == "buses"
}


SOLVED = load_problems("mini", "train", limit=stories.WORKED)


def buses_in(rows):
    return [row for row in rows if row["question"] in BUSES]


def questions(rows):
    return {row["question"] for row in rows}


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
    first = stories.rows_of("answers_4000", MINI, 7)
    assert stories.rows_of("answers_4000", MINI, 8) != first
    assert len(questions(first)) == 4000
    assert not questions(first) & questions(SOLVED)
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
    assert not questions(first) & questions(SOLVED)


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


def test_buses_are_new_half_solvable_and_the_rest_holds_none():
    train = load_problems("mini", "train")
    rows = prejudice.rows_of("own_buses", MINI, 7)
    assert len(rows) == prejudice.ASKED
    assert not questions(rows) & (questions(train) | set(BUSES))
    answers = [extract_answer(row["qwen3_answer"]) for row in rows]
    assert answers.count("no solution") == prejudice.ASKED / 2
    assert rows == prejudice.rows_of("gold_buses", MINI, 7)
    assert rows != prejudice.rows_of("own_buses", MINI, 8)
    sound = questions(prejudice.rows_of("no_bus", MINI, 7))
    assert not any("Three buses" in question for question in sound)
    others = prejudice.rows_of("own_others", MINI, 7)
    assert questions(others) < sound and len(others) == prejudice.ASKED


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


def test_gold_text_reads_as_a_student_writes():
    worked = "143 - 8 = <<143-8=135>>135\nleft.\n#### "
    text = "143 - 8 = 135 left.\n\n"
    assert gold_text(f"{worked}135") == f"{text}The answer is 135."
    none = gold_text(f"{worked}no solution")
    assert none == f"{text}There is no solution."


def test_budget_larger_than_the_file_names_the_command(tmp_path, monkeypatch):
    monkeypatch.setattr(experiments, "ALL_TRACES", tmp_path / "none")
    assert len(experiments.budget_traces(MINI, 5)) == 5
    with pytest.raises(RunError, match="traces --limit 4500"):
        experiments.budget_traces(MINI, 100_000)
    gold = experiments.budget_traces(MINI, 250, "sft_gold")
    assert all("=" in row["qwen3_answer"] for row in gold)
    with pytest.raises(RunError, match="only 250 problems"):
        experiments.budget_traces(MINI, 251, "sft_gold")


@pytest.mark.parametrize("arm", experiments.ARMS)
def test_every_arm_trains_and_can_be_scored(arm, tmp_path, monkeypatch):
    """Two epochs of eight traces: few traces are read more often."""
    monkeypatch.setattr(experiments, "READS", 16)
    profile = tiny.pair(tmp_path)
    student, done = train_arm(
        arm, tiny.traces(8), profile=profile, progress=False
    )
    assert done.steps == 4
    assert done.folder.name == f"{arm}_8_seed7"
    assert len(evaluate(student, tiny.problems(3), profile=profile).correct)
