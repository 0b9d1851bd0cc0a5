"""Composed problems: solvable from their text, apart, and repeatable."""

import json
import re
from collections import Counter

import pytest
from solver import solve

from helpers.answers import gold_answer
from helpers.problems import read_problems
from helpers.rebuild.composed import (
    compose,
    generate_problems,
    minilab,
    problem,
)


@pytest.fixture(scope="module")
def drawn():
    """500 problems of every split."""
    return {
        split: generate_problems(500, seed=11, split=split)
        for split in compose.SPLITS
    }


def test_generate_problems_are_solved_from_their_text_alone(drawn):
    for split in compose.SPLITS:
        for made in drawn[split]:
            assert solve(made.question) == made.final, made


def test_generate_problems_repeats_itself_and_excludes(drawn):
    first = drawn["test"]
    assert generate_problems(500, seed=11, split="test") == first
    assert generate_problems(500, seed=12, split="test") != first
    known = {p.question for p in first[:250]}
    fresh = generate_problems(500, seed=11, split="test", exclude=known)
    assert not known & {p.question for p in fresh}


def test_generate_problems_keeps_splits_apart(drawn):
    questions = [p.question for made in drawn.values() for p in made]
    assert len(set(questions)) == len(questions)
    met = {p.moves for s in ("train", "validation", "test") for p in drawn[s]}
    unseen = {p.moves for p in drawn["unseen"]}
    assert len(unseen) > 50
    assert not met & unseen
    lengths = {len(p.steps) for s in ("train", "test") for p in drawn[s]}
    assert {len(p.steps) for p in drawn["longer"]} == {max(lengths) + 1}


@pytest.mark.parametrize("split", ["test", "unseen", "longer", "buses"])
def test_twins_differ_in_one_number_and_are_equally_frequent(drawn, split):
    told = [p for p in drawn[split] if p.comparison]
    assert len(told) > 100
    for agreeing, contradicting in zip(told[::2], told[1::2], strict=True):
        words = agreeing.question.split(), contradicting.question.split()
        changed = [a for a, b in zip(*words, strict=True) if a != b]
        assert len(changed) == 1 and changed[0].isdigit()
        assert (agreeing.impossible, contradicting.impossible) == (False, True)


def test_every_quantity_is_needed(drawn):
    for made in drawn["test"] + drawn["longer"]:
        needed = set().union(*(step.needs for step in made.steps))
        assert needed == set(range(len(made.steps) - 1)), made


def test_answer_is_worked_in_gsm8k_format(drawn):
    for made in drawn["test"]:
        *_, final = made.answer.split("\n")
        notes = re.findall(r"<<(\d+)([-+*/])(\d+)=(\d+)>>\4", made.answer)
        assert len(notes) == len(made.steps)
        for left, symbol, right, value in notes:
            operation = problem.SYMBOLS[symbol]
            assert operation(int(left), int(right)) == int(value)
        assert final == f"#### {gold_answer(made.answer)}"


def test_no_composition_dominates():
    counts = Counter(p.moves for p in generate_problems(3000, seed=5))
    assert len(counts) > 700
    assert counts.most_common(1)[0][1] < 90


@pytest.fixture
def moves_file(tmp_path):
    """Writes moves.json, changed by a function."""

    def write(change):
        data = json.loads(problem.MOVES.read_text(encoding="utf-8"))
        change(data["moves"])
        path = tmp_path / "moves.json"
        path.write_text(json.dumps(data), encoding="utf-8")
        return path

    return write


def test_a_move_of_five_lines_is_told_and_solved(moves_file, monkeypatch):
    move = {"topic": "has", "kind": "event", "name": "wins", "sum": "2 * a"}
    move["text"] = "Then {A} wins as many {o} again."
    book = problem.load_moves(moves_file(lambda moves: moves.append(move)))
    monkeypatch.setattr(compose, "load_moves", lambda: book)
    made = generate_problems(300, seed=1)
    wins = [p for p in made if "wins" in p.moves.split()]
    assert wins and all("as many" in p.question for p in wins)
    assert any("2*" in p.answer for p in wins)


def test_load_moves_names_the_move_with_a_wrong_field(moves_file):
    path = moves_file(lambda moves: moves[3].update(summ="a + b"))
    with pytest.raises(ValueError, match="fewer"):
        problem.load_moves(path)


def test_generate_problems_refuses_an_unknown_split():
    with pytest.raises(ValueError, match="held_out"):
        generate_problems(1, seed=1, split="held_out")


def test_build_problems_writes_the_same_solvable_files(tmp_path, monkeypatch):
    """Twenty problems each; of train, four come with their solution."""
    sizes = dict.fromkeys(minilab.SIZES, 20)
    monkeypatch.setattr(minilab, "SIZES", sizes)
    monkeypatch.setattr(minilab, "WORKED", 4)
    minilab.build_problems(7, tmp_path)
    first = {f.name: f.read_bytes() for f in tmp_path.iterdir()}
    minilab.build_problems(7, tmp_path)
    assert first == {f.name: f.read_bytes() for f in tmp_path.iterdir()}
    rows = read_problems(tmp_path / "train.jsonl")
    assert ["<<" in row["answer"] for row in rows] == [True] * 4 + [False] * 16
    assert all(solve(r["question"]) == gold_answer(r["answer"]) for r in rows)
    reserved = minilab.reserved_questions(tmp_path)
    assert len(reserved) == 100
    assert not reserved & {row["question"] for row in rows}
