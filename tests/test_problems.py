"""Exact, disjoint, well reported."""

import json
import shutil
from collections import Counter
from functools import partial

import pytest
from solver import solve

from helpers import problems
from helpers.answers import gold_answer
from helpers.problems import ProblemFileError, load_problems, read_problems
from helpers.profiles import DATA

SIZES = {"train": 4500, "validation": 1000, "test": 2000}
SIZES |= {"unseen": 1000, "longer": 500, "buses": 300}
SAMPLE = DATA / "gsm8k" / "sample.jsonl"
GOOD = '{"question": "1 + 1?", "answer": "2 #### 2"}'


@pytest.fixture(scope="module")
def shipped() -> dict[str, list[dict]]:
    return {split: load_problems("mini", split) for split in SIZES}


def check_disjoint(splits: dict[str, list[dict]]) -> None:
    """No question twice, neither in one split nor in two."""
    questions = Counter(
        " ".join(row["question"].lower().split())
        for rows in splits.values()
        for row in rows
    )
    assert max(questions.values()) == 1


def test_mini_splits_are_disjoint_and_as_told(shipped):
    assert {name: len(rows) for name, rows in shipped.items()} == SIZES
    check_disjoint({**shipped, "showcase": problems.showcase()})
    golds = [gold_answer(row["answer"]) for row in problems.showcase()]
    assert golds == ["62", "28", "no solution"]
    unseen = {row["moves"] for row in shipped["unseen"]}
    assert len(unseen) > 200
    for split, rows in shipped.items():
        if split not in ("unseen", "longer"):
            assert not unseen & {row["moves"] for row in rows}
        impossible = [row["impossible"] for row in rows]
        golds = [gold_answer(row["answer"]) for row in rows]
        assert impossible == [gold == "no solution" for gold in golds]
        share = sum(impossible) / len(rows)
        assert share == 0.5 if split == "buses" else 0.1 < share < 0.2
        assert [solve(row["question"]) for row in rows] == golds
    steps = [row["answer"].count("<<") for row in shipped["longer"]]
    assert set(steps) == {5}


def test_build_problems_gives_the_shipped_files(tmp_path):
    from helpers.rebuild import minilab  # transformers, after Unsloth

    shutil.copy(problems.PROBLEMS / "showcase.jsonl", tmp_path)
    minilab.build_problems(7, tmp_path)
    for split in SIZES:
        new = (tmp_path / f"{split}.jsonl").read_bytes()
        old = (problems.PROBLEMS / f"{split}.jsonl").read_bytes()
        assert new == old.replace(b"\r\n", b"\n"), split
    reserved = minilab.reserved_questions(tmp_path)  # the showcase's three too
    assert len(reserved) == sum(SIZES.values()) - SIZES["train"] + 3
    train = read_problems(tmp_path / "train.jsonl")
    assert not reserved & {row["question"] for row in train}
    worked = ["<<" in row["answer"] for row in train]
    assert all(worked[:250]) and not any(worked[250:])


def test_load_problems_cuts_one_file_into_disjoint_splits():
    parts = {name: load_problems(SAMPLE, name) for name in list(SIZES)[:3]}
    rows = [row for part in parts.values() for row in part]
    assert rows == read_problems(SAMPLE)
    assert [len(part) for part in parts.values()] == [80, 20, 24]
    check_disjoint(parts)
    assert load_problems(SAMPLE, "test", limit=3) == parts["test"][:3]


def test_load_problems_folder_without_validation_cuts_its_train(tmp_path):
    rows = [GOOD.replace("1 + 1", f"{n} + 1") for n in range(10)]
    (tmp_path / "train.jsonl").write_text("\n".join(rows))
    load = partial(load_problems, tmp_path)
    assert [*map(len, map(load, ("train", "validation")))] == [8, 2]
    (tmp_path / "validation.jsonl").write_text(GOOD)
    assert [*map(len, map(load, ("train", "validation")))] == [10, 1]


@pytest.mark.parametrize(
    ("content", "part"),
    [
        (f'{GOOD}\n{{"question": "1?"', "line 2: not JSON"),
        (f'{GOOD}\n{{"text": "hello"}}', "line 2: no text in 'question'"),
        (f"{GOOD}\n[1, 2]", "line 2: no text in 'question'"),
        ('{"question": "1?", "answer": 2}', "line 1: no text in 'answer'"),
        ('{"question": " ", "answer": "#### 2"}', "line 1: no text"),
        ('{"question": "1?", "answer": "two"}', "#### value"),
        ('{"question": "1?", "answer": "2 ####"}', "#### value"),
        ("[" * 100_000, "line 1: not JSON"),
        (GOOD.replace("1?", "1? " * 10_000), "longer than 20,000"),
        (GOOD.replace("1?", "\\ud800"), "half a character"),
        (GOOD.replace("2", "1e99999999"), "#### value"),
        ("\n".join([GOOD] * 20), "20 times"),
        ("\n\n", "holds no problem"),
        ("\n".join([GOOD] * 9), "holds 9 problems"),
        (
            "\n".join(GOOD.replace("{", f'{{"id": "{i}", ') for i in "aba"),
            "line 3: the id 'a'",
        ),
    ],
)
def test_load_problems_refuses_a_bad_file(tmp_path, content, part):
    file = tmp_path / "mine.jsonl"
    file.write_text(content, encoding="utf-8", newline="\n")
    with pytest.raises(ProblemFileError, match="^mine.jsonl") as caught:
        load_problems(file, "train")
    message = str(caught.value)
    assert part in message and str(tmp_path) not in message
    assert "\n" not in message


def test_read_problems_keeps_unicode_line_separators(tmp_path):
    file = tmp_path / "mine.jsonl"
    row = {"question": "one\u2028two\x85three?", "answer": "#### 1"}
    lines = [json.dumps(r, ensure_ascii=False) for r in (row, row | {"id": 7})]
    file.write_text("\n".join(lines), encoding="utf-8")
    first, second = read_problems(file)
    assert first == row | {"id": "mine-00000"}
    assert second == row | {"id": "7"}  # an id is a text


@pytest.mark.parametrize(
    ("source", "split", "message"),
    [
        ("binary.jsonl", "train", "binary.jsonl cannot be read"),
        ("gone.jsonl", "train", "gone.jsonl.*DISTILL_PROBLEMS"),
        ("gone", "train", "no file or folder here"),
        ("", "test", "test.jsonl does not exist"),
        ("", "unseen", "no split 'unseen'"),
        ("", "dev", "'dev'.*train, validation"),
    ],
)
def test_missing_problems_are_named(tmp_path, source, split, message):
    (tmp_path / "binary.jsonl").write_bytes(b"\xff\xfe\x00binary")
    with pytest.raises(ProblemFileError, match=message):
        load_problems(tmp_path / source, split)
