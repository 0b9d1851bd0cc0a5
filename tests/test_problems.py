"""Exact, disjoint, well reported."""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from pathlib import Path

import pytest

from helpers import problems
from helpers.answers import gold_answer
from helpers.problems import ProblemFileError, load_problems, read_problems
from helpers.profiles import ROOT
from helpers.rebuild import generator

SIZES = {"train": 4500, "validation": 400, "test": 600, "held_out": 400}
SAMPLE = Path(__file__).parent / "gsm8k_sample.jsonl"
NOTE = re.compile(r"<<(\d+)([-+*/])(\d+)=(\d+)>>(\d+)")
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


# --- the shipped files -------------------------------------------------------


def test_mini_calculations_are_exact_and_in_gsm8ks_format(shipped):
    assert {name: len(rows) for name, rows in shipped.items()} == SIZES
    check_disjoint({**shipped, "showcase": problems.showcase()})
    for row in [row for rows in shipped.values() for row in rows]:
        body, _, value = row["answer"].rpartition("\n#### ")
        notes = NOTE.findall(body)
        assert body.count("<<") == len(notes) >= 1
        for left, symbol, right, result, shown in notes:
            left, right, result = int(left), int(right), int(result)
            exact = {
                "+": left + right == result,
                "-": left - right == result,
                "*": left * right == result,
                "/": left == result * right,
            }
            assert exact[symbol] and int(shown) == result
        assert gold_answer(row["answer"]) == value
        assert value == "no solution" or value.isdigit()


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_mini_steps_impossible_share_and_templates(shipped, split):
    rows = shipped[split]
    solvable = Counter(
        row["answer"].count("<<") for row in rows if not row["impossible"]
    )
    assert set(solvable) <= {1, 2, 3, 4} and solvable[1] < 0.05 * len(rows)
    assert 0.08 <= 1 - solvable.total() / len(rows) <= 0.20
    for row in rows:
        no_solution = row["answer"].endswith("#### no solution")
        assert row["impossible"] == no_solution
    templates = generator.load_templates()
    unseen = {t["name"] for t in templates if t.get("held_out")}
    assert len(unseen) >= 3
    assert unseen == {row["template"] for row in shipped["held_out"]}
    assert not unseen & {row["template"] for row in rows}


def test_build_problems_gives_the_shipped_files(tmp_path, monkeypatch):
    from helpers.rebuild import minilab  # transformers, after Unsloth

    monkeypatch.setattr(minilab, "PROBLEMS", tmp_path)
    minilab.build_problems(7)
    for split in SIZES:
        new = (tmp_path / f"{split}.jsonl").read_bytes()
        old = (problems.PROBLEMS / f"{split}.jsonl").read_bytes()
        assert new == old.replace(b"\r\n", b"\n"), split


def test_showcase_three_problems_and_their_answers():
    golds = [gold_answer(row["answer"]) for row in problems.showcase()]
    assert golds == ["62", "28", "no solution"]


# --- GSM8K and files of one's own -------------------------------------------


def test_load_problems_gsm8k_folder():
    """The real data set: DISTILL_GSM8K, or a folder beside the checkout."""
    named = os.environ.get("DISTILL_GSM8K")
    folder = Path(named) if named else ROOT.parent / "shared" / "gsm8k"
    if not (folder / "train.jsonl").exists():
        pytest.skip("no real GSM8K here: name its folder in DISTILL_GSM8K")
    splits = {name: load_problems(folder, name) for name in list(SIZES)[:3]}
    sizes = {name: len(rows) for name, rows in splits.items()}
    assert sizes == {"train": 7000, "validation": 473, "test": 1319}
    check_disjoint(splits)
    ids = [row["id"] for rows in splits.values() for row in rows]
    assert len(set(ids)) == 8792


def test_load_problems_cuts_one_file_into_disjoint_splits():
    parts = {name: load_problems(SAMPLE, name) for name in list(SIZES)[:3]}
    rows = [row for part in parts.values() for row in part]
    assert rows == read_problems(SAMPLE)
    assert [len(part) for part in parts.values()] == [80, 20, 24]
    check_disjoint(parts)
    assert load_problems(SAMPLE, "test", limit=3) == parts["test"][:3]
    for row in rows:
        assert gold_answer(row["answer"]) == row["answer"].split("#### ")[1]


def test_load_problems_folder_without_validation_cuts_its_train(tmp_path):
    rows = [GOOD.replace("1 + 1", f"{n} + 1") for n in range(10)]
    (tmp_path / "train.jsonl").write_text("\n".join(rows))
    sizes = [len(load_problems(tmp_path, name)) for name in list(SIZES)[:2]]
    assert sizes == [8, 2]
    (tmp_path / "validation.jsonl").write_text(GOOD)
    sizes = [len(load_problems(tmp_path, name)) for name in list(SIZES)[:2]]
    assert sizes == [10, 1]


# --- bad input ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "parts"),
    [
        (f'{GOOD}\n{{"question": "1?"', ["line 2", "not JSON", "delete"]),
        (f'{GOOD}\n{{"text": "hello"}}', ["line 2", "'question'", "####"]),
        (f"{GOOD}\n[1, 2]", ["line 2", "'question'"]),
        ('{"question": "1?", "answer": 2}', ["line 1", "'answer'"]),
        ('{"question": " ", "answer": "#### 2"}', ["line 1", "'question'"]),
        ('{"question": "1?", "answer": "two"}', ["line 1", "#### value"]),
        ('{"question": "1?", "answer": "2 ####"}', ["line 1", "#### value"]),
        ("", ["holds no problem"]),
        ("\n\n", ["holds no problem"]),
        ("\n".join([GOOD] * 9), ["holds 9 problems", "needs 10"]),
        (
            "\n".join(GOOD.replace("{", f'{{"id": "{i}", ') for i in "aba"),
            ["line 3", "the id 'a'", "line 1", "its own id"],
        ),
    ],
)
def test_load_problems_refuses_a_bad_file(tmp_path, content, parts):
    file = tmp_path / "mine.jsonl"
    file.write_text(content, encoding="utf-8", newline="\n")
    with pytest.raises(ProblemFileError) as caught:
        load_problems(file, "train")
    message = str(caught.value)
    assert message.startswith("mine.jsonl") and "\n" not in message
    assert str(tmp_path) not in message
    assert all(part in message for part in parts), message
    assert file.read_text(encoding="utf-8") == content


@pytest.mark.parametrize("strange", ["7", "[1, 2]", "null"])
def test_read_problems_makes_every_id_a_text(tmp_path, strange):
    file = tmp_path / "mine.jsonl"
    file.write_text(GOOD.replace("{", f'{{"id": {strange}, ', 1))
    [row] = read_problems(file)
    assert isinstance(row["id"], str)


def test_read_problems_keeps_unicode_line_separators(tmp_path):
    file = tmp_path / "mine.jsonl"
    question = "one\u2028two\x85three?"
    row = {"question": question, "answer": "#### 1"}
    text = json.dumps(row, ensure_ascii=False)
    file.write_text(f"{text}\n{text}\n", encoding="utf-8")
    rows = read_problems(file)
    assert [r["question"] for r in rows] == [question] * 2
    assert [r["id"] for r in rows] == ["mine-00000", "mine-00001"]


@pytest.mark.parametrize(
    ("source", "split", "message"),
    [
        ("binary.jsonl", "train", "binary.jsonl cannot be read"),
        ("folder.jsonl", "train", "folder.jsonl cannot be read"),
        ("gone.jsonl", "train", "gone.jsonl.*DISTILL_PROBLEMS"),
        ("gone", "train", "no file or folder here"),
        ("", "test", "test.jsonl does not exist"),
        ("", "held_out", "no held-out templates"),
        ("binary.jsonl", "held_out", "no held-out templates"),
        ("openai/gsm8k", "held_out", "no held-out templates"),
        ("", "dev", "'dev'.*train, validation"),
    ],
)
def test_load_problems_names_what_is_not_there(
    tmp_path, source, split, message
):
    (tmp_path / "binary.jsonl").write_bytes(b"\xff\xfe\x00binary")
    (tmp_path / "folder.jsonl").mkdir()
    with pytest.raises(ProblemFileError, match=message):
        load_problems(tmp_path / source, split)
