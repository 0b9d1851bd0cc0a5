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
from helpers.problems import (
    ProblemFileError,
    check_disjoint,
    load_problems,
    read_problems,
)
from helpers.profiles import ROOT
from helpers.rebuild import generator

SIZES = {"train": 4500, "validation": 400, "test": 600, "held_out": 400}
SAMPLE = Path(__file__).parent / "gsm8k_sample.jsonl"
NOTE = re.compile(r"<<(\d+)([-+*/])(\d+)=(\d+)>>(\d+)")


@pytest.fixture(scope="module")
def shipped() -> dict[str, list[dict]]:
    return {split: load_problems("mini", split) for split in SIZES}


def gsm8k_folder() -> Path:
    """The real data set: DISTILL_GSM8K, or a folder beside the checkout."""
    named = os.environ.get("DISTILL_GSM8K")
    folder = Path(named) if named else ROOT.parent / "shared" / "gsm8k"
    if not (folder / "train.jsonl").exists():
        pytest.skip("no real GSM8K here: name its folder in DISTILL_GSM8K")
    return folder


# --- the shipped files -------------------------------------------------------


def test_load_problems_mini_sizes_and_gsm8k_format(shipped):
    assert {name: len(rows) for name, rows in shipped.items()} == SIZES
    for row in [row for rows in shipped.values() for row in rows]:
        body, mark, value = row["answer"].rpartition("\n#### ")
        assert mark and body
        for left, symbol, right, result, shown in NOTE.findall(body):
            assert result == shown
            left, right = int(left), int(right)
            exact = {
                "+": left + right,
                "-": left - right,
                "*": left * right,
                "/": left / right,
            }[symbol]
            assert int(result) == exact
        assert body.count("<<") == len(NOTE.findall(body)) >= 1
        assert gold_answer(row["answer"]) == value
        assert value == "no solution" or value.isdigit()


def test_load_problems_mini_two_to_four_steps(shipped):
    steps = Counter(row["answer"].count("<<") for row in shipped["train"])
    solvable = Counter(
        row["answer"].count("<<")
        for row in shipped["train"]
        if not row["impossible"]
    )
    assert set(steps) <= {1, 2, 3, 4}
    assert solvable[1] < 0.05 * sum(solvable.values())


def test_load_problems_mini_impossible_share(shipped):
    for split in ("train", "validation", "test"):
        rows = shipped[split]
        impossible = [row for row in rows if row["impossible"]]
        assert 0.08 <= len(impossible) / len(rows) <= 0.20
        for row in rows:
            no_solution = row["answer"].endswith("#### no solution")
            assert row["impossible"] == no_solution


def test_load_problems_mini_held_out_templates_are_held_out(shipped):
    held = {row["template"] for row in shipped["held_out"]}
    assert len(held) >= 3
    for split in ("train", "validation", "test"):
        assert not held & {row["template"] for row in shipped[split]}
    marked = {
        t["name"] for t in generator.load_templates() if t.get("held_out")
    }
    assert held == marked


def test_check_disjoint_shipped_splits_and_showcase(shipped):
    splits = {**shipped, "showcase": problems.showcase()}
    assert check_disjoint(splits) == {**SIZES, "showcase": 3}


def test_check_disjoint_finds_one_question_in_two_splits():
    row = {"question": "How many  Pens?"}
    other = {"question": "how many pens?"}
    with pytest.raises(ValueError, match="in train and in test"):
        check_disjoint({"train": [row], "test": [other]})
    assert check_disjoint({"train": [row, row]}) == {"train": 1}


def test_build_problems_gives_the_shipped_files(tmp_path, monkeypatch):
    from helpers.rebuild import minilab

    monkeypatch.setattr(minilab, "PROBLEMS", tmp_path)
    minilab.build_problems(7)
    for split in SIZES:
        new = (tmp_path / f"{split}.jsonl").read_bytes()
        old = (problems.PROBLEMS / f"{split}.jsonl").read_bytes()
        assert new == old.replace(b"\r\n", b"\n"), split


def test_showcase_three_problems_and_their_answers():
    rows = problems.showcase()
    golds = [gold_answer(row["answer"]) for row in rows]
    assert golds == ["62", "28", "no solution"]


# --- real GSM8K --------------------------------------------------------------


def test_load_problems_gsm8k_excerpt():
    rows = read_problems(SAMPLE)
    assert len(rows) == 124
    assert len({row["question"] for row in rows}) == 124
    for row in rows:
        assert gold_answer(row["answer"]) == row["answer"].split("#### ")[1]


def test_load_problems_gsm8k_folder():
    folder = gsm8k_folder()
    splits = {
        split: load_problems(folder, split)
        for split in ("train", "validation", "test")
    }
    sizes = {name: len(rows) for name, rows in splits.items()}
    assert sizes == {"train": 7000, "validation": 473, "test": 1319}
    check_disjoint(splits)
    ids = [row["id"] for rows in splits.values() for row in rows]
    assert len(set(ids)) == 8792
    assert all(gold_answer(r["answer"]) for r in splits["test"])


def test_cut_validation_keeps_every_row_once():
    rows = [{"id": str(i)} for i in range(7473)]
    train = problems.cut_validation(rows, "train")
    validation = problems.cut_validation(rows, "validation")
    assert train + validation == rows and len(validation) == 473
    few = rows[:10]
    assert len(problems.cut_validation(few, "validation")) == 2


def test_load_problems_cuts_one_file_into_disjoint_splits():
    parts = {
        split: load_problems(SAMPLE, split)
        for split in ("train", "validation", "test")
    }
    assert parts["train"] + parts["validation"] + parts["test"] == (
        read_problems(SAMPLE)
    )
    sizes = check_disjoint(parts)
    assert sizes == {"train": 80, "validation": 20, "test": 24}
    assert load_problems(SAMPLE, "test", limit=3) == parts["test"][:3]
    with pytest.raises(ProblemFileError, match="no held-out templates"):
        load_problems(SAMPLE, "held_out")


# --- bad input ---------------------------------------------------------------

GOOD = '{"question": "1 + 1?", "answer": "2 #### 2"}'


def refusal(folder: Path, content: str) -> str:
    """The sentence that a file with this content is refused with."""
    file = folder / "mine.jsonl"
    file.write_text(content, encoding="utf-8", newline="\n")
    with pytest.raises(ProblemFileError) as caught:
        load_problems(file, "train")
    assert file.read_text(encoding="utf-8") == content
    message = str(caught.value)
    assert str(folder) not in message and "\n" not in message
    return message


@pytest.mark.parametrize(
    ("line", "parts"),
    [
        ('{"question": "1?", "answer"', ["line 2", "not JSON", "delete"]),
        (GOOD[:-7], ["line 2", "not JSON", "cut off"]),
        ('{"text": "hello"}', ["line 2", "'question'", "####"]),
        ("[1, 2]", ["line 2", "'question'"]),
        ('{"question": "1?", "answer": 2}', ["line 2", "'answer'"]),
        ('{"question": " ", "answer": "#### 2"}', ["line 2", "'question'"]),
        ('{"question": "1?", "answer": "two"}', ["line 2", "#### value"]),
        ('{"question": "1?", "answer": "2 ####"}', ["line 2", "#### value"]),
    ],
)
def test_load_problems_refuses_a_bad_line(tmp_path, line, parts):
    message = refusal(tmp_path, f"{GOOD}\n{line}\n")
    assert message.startswith("mine.jsonl, line 2:")
    assert all(part in message for part in parts), message


def test_load_problems_refuses_an_empty_file(tmp_path):
    assert "holds no problem" in refusal(tmp_path, "")
    assert "holds no problem" in refusal(tmp_path, "\n\n")


def test_load_problems_refuses_a_file_too_small_to_cut(tmp_path):
    rows = [GOOD.replace("1 + 1", f"{n} + 1") for n in range(9)]
    message = refusal(tmp_path, "\n".join(rows) + "\n")
    assert "holds 9 problems" in message and "needs 10" in message
    (tmp_path / "ten.jsonl").write_text("\n".join([*rows, GOOD]) + "\n")
    sizes = [
        len(load_problems(tmp_path / "ten.jsonl", split))
        for split in ("train", "validation", "test")
    ]
    assert sizes == [7, 1, 2]


def test_load_problems_refuses_a_duplicate_id(tmp_path):
    rows = [json.dumps({"id": name, **json.loads(GOOD)}) for name in "abca"]
    message = refusal(tmp_path, "\n".join(rows) + "\n")
    assert message.startswith("mine.jsonl, line 4: the id 'a'")
    assert "line 1" in message and "its own id" in message


@pytest.mark.parametrize("strange", ["7", "[1, 2]", "null"])
def test_load_problems_makes_every_id_a_text(tmp_path, strange):
    file = tmp_path / "mine.jsonl"
    line = GOOD.replace("{", f'{{"id": {strange}, ', 1)
    file.write_text(line, encoding="utf-8")
    [row] = read_problems(file)
    assert isinstance(row["id"], str)


def test_load_problems_keeps_unicode_line_separators(tmp_path):
    file = tmp_path / "mine.jsonl"
    question = "one\u2028two\x85three?"
    row = {"question": question, "answer": "#### 1"}
    text = json.dumps(row, ensure_ascii=False)
    file.write_text(f"{text}\n{text}\n", encoding="utf-8")
    rows = read_problems(file)
    assert [r["question"] for r in rows] == [question] * 2
    assert [r["id"] for r in rows] == ["mine-00000", "mine-00001"]


def test_load_problems_refuses_a_binary_file_and_a_folder(tmp_path):
    file = tmp_path / "mine.jsonl"
    file.write_bytes(b"\xff\xfe\x00binary")
    with pytest.raises(ProblemFileError, match="mine.jsonl cannot be read"):
        load_problems(file, "train")
    (tmp_path / "folder.jsonl").mkdir()
    with pytest.raises(ProblemFileError, match="folder.jsonl cannot be"):
        load_problems(tmp_path / "folder.jsonl", "train")


def test_load_problems_names_a_missing_file_and_folder(tmp_path):
    with pytest.raises(ProblemFileError, match="gone.jsonl.*DISTILL_PROB"):
        load_problems(tmp_path / "gone.jsonl", "train")
    with pytest.raises(ProblemFileError, match="no file or folder here"):
        load_problems(tmp_path / "gone", "train")
    with pytest.raises(ProblemFileError, match="test.jsonl does not exist"):
        load_problems(tmp_path, "test")


def test_load_problems_names_the_splits_it_knows():
    with pytest.raises(ProblemFileError, match="'dev'.*train, validation"):
        load_problems("mini", "dev")


def test_load_problems_hub_has_no_held_out_split():
    with pytest.raises(ProblemFileError, match="no held-out"):
        load_problems("openai/gsm8k", "held_out")


def test_load_problems_folder_without_held_out_split(tmp_path):
    line = '{"question": "1 + 1?", "answer": "#### 2"}\n'
    (tmp_path / "train.jsonl").write_text(line)
    with pytest.raises(ProblemFileError, match="no held-out templates"):
        load_problems(tmp_path, "held_out")


def test_load_problems_limit_takes_the_first():
    rows = load_problems("mini", "test")
    assert load_problems("mini", "test", limit=5) == rows[:5]
