"""Composed problems: solvable from their text, apart, and repeatable."""

import pytest
from solver import solve

from helpers.rebuild import compose, generate_problems


@pytest.fixture(scope="module")
def drawn():
    """500 problems of every split."""
    return {
        split: generate_problems(500, seed=11, split=split)
        for split in compose.SPLITS
    }


def test_problems_are_solved_from_their_text_and_need_all_of_it(drawn):
    for split, problems in drawn.items():
        for made in problems:
            assert solve(made.question) == made.final, made
            if split in ("test", "longer"):
                needed = set().union(*(step.needs for step in made.steps))
                assert needed == set(range(len(made.steps) - 1)), made


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
