"""helpers.problems and helpers.generator: exact, disjoint, well reported."""

from __future__ import annotations

import json
import os
import random
import re
from collections import Counter
from pathlib import Path

import pytest

from helpers import generator, problems
from helpers.answers import gold_answer
from helpers.files import ROOT
from helpers.problems import ProblemFileError, check_disjoint, load_problems

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


def one_of_each() -> list[generator.Problem]:
    """Twenty draws of every template."""
    rng = random.Random(11)
    return [
        generator.make_problem(template, rng)
        for template in generator.load_templates()
        for _ in range(20)
    ]


# --- the generator -----------------------------------------------------------


def test_load_templates_at_least_24_with_names_of_their_own():
    templates = generator.load_templates()
    assert len({t["name"] for t in templates}) == len(templates) >= 24
    assert len({t["text"] for t in templates}) >= 24
    assert sum(t.get("held_out", False) for t in templates) >= 3


def test_load_templates_says_how_to_restore_a_broken_file(tmp_path):
    broken = tmp_path / "templates.json"
    broken.write_text("[{", encoding="utf-8")
    with pytest.raises(ValueError, match="templates.json.*git checkout"):
        generator.load_templates(broken)


def test_make_problem_gold_is_what_the_steps_compute():
    for problem in one_of_each():
        known = {int(n) for n in re.findall(r"\d+", problem.question)}
        known |= {2, 3, 4}  # "twice", "half", "two ends"
        known |= {n + 1 for n in known}
        if problem.template == "share_whole_impossible":
            whole, friends = map(int, re.findall(r"\d+", problem.question))
            known |= {whole // friends, whole // friends + 1}
        for step in problem.steps:
            left, right = step.left, step.right
            exact = {
                "+": left + right,
                "-": left - right,
                "*": left * right,
                "/": left / right,
            }[step.symbol]
            assert step.value == exact and 1 <= step.value <= 999
            assert {left, right} <= known, problem
            known.add(step.value)
        values = {str(step.value) for step in problem.steps}
        assert problem.answer in values | {"no solution"}
        assert gold_answer(problem.gold) == problem.answer


def test_make_problem_fills_every_brace_with_different_names():
    for problem in one_of_each():
        assert "{" not in problem.question + problem.gold
        assert problem.question.endswith("?")


def test_make_problem_impossible_is_really_impossible():
    """Recomputed from the question, not from the template's own condition."""
    checked = Counter()
    for problem in one_of_each():
        numbers = [int(n) for n in re.findall(r"\d+", problem.question)]
        name = problem.template.removesuffix("_impossible")
        impossible = problem.answer == "no solution"
        assert impossible == bool(problem.conflict)
        assert impossible == problem.template.endswith("_impossible")
        if name == "chairs":
            rows, width, people = numbers
            assert impossible == (people > rows * width)
        elif name == "change":
            price, count, paid = numbers
            assert impossible == (paid < price * count)
        elif name == "share_whole":
            assert impossible == (numbers[0] % numbers[1] > 0)
        elif name == "buses":
            _, more, everyone, both = numbers
            library = everyone - both
            assert impossible == (3 * library + more != both)
        else:
            continue
        checked[name] += 1
    assert len(checked) == 4 and min(checked.values()) == 40


def test_step_check_is_the_inverse_calculation():
    for left, symbol, right, value, check in (
        (6, "+", 2, 8, "8 - 2 = 6"),
        (6, "-", 2, 4, "4 + 2 = 6"),
        (6, "*", 2, 12, "12 / 2 = 6"),
        (6, "/", 2, 3, "3 * 2 = 6"),
    ):
        step = generator.Step("x", left, symbol, right, value)
        assert step.check == check


def test_work_out_refuses_fractions_and_large_values():
    assert generator.work_out(["x: a / 2 = s"], {"a": 7}) is None
    assert generator.work_out(["x: a / 0 = s"], {"a": 7}) is None
    assert generator.work_out(["x: a - 7 = s"], {"a": 7}) is None
    assert generator.work_out(["x: a * 200 = s"], {"a": 7}) is None
    [step] = generator.work_out(["x: a / 7 = s"], {"a": 7})
    assert step.value == 1


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("3 * l + d", 17),
        ("l // 2 == 2", True),
        ("l % 2 > 0 and d != 2", False),
        ("l - d < 3", False),
    ],
)
def test_evaluate_expression_computes(expression, value):
    found = generator.evaluate_expression(expression, {"l": 5, "d": 2})
    assert found == value


@pytest.mark.parametrize(
    "expression",
    [
        "__import__('os').system('true')",
        "l.__class__",
        "(lambda: 1)()",
        "[l][0]",
        "9 ** 9 ** 9",
        "1 << 99",
        "l / 2",
        "-l",
        "l < 5 < d",
        "l or d",
        "'a' * 9",
        "1.5",
        "l if d else 1",
        "(l := 3)",
        "f'{l}'",
        "l >= d",
        "unknown + 1",
        "l +",
        "",
    ],
)
def test_evaluate_expression_refuses_anything_else(expression):
    with pytest.raises(ValueError, match="cannot contain"):
        generator.evaluate_expression(expression, {"l": 5, "d": 2})


def test_generate_problems_same_seed_same_list():
    first = generator.generate_problems(50, seed=3)
    assert first == generator.generate_problems(50, seed=3)
    assert first != generator.generate_problems(50, seed=4)
    excluded = {p.question for p in first}
    others = generator.generate_problems(50, seed=3, exclude=excluded)
    assert not excluded & {p.question for p in others}


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
    from helpers import minilab

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
    rows = load_problems(SAMPLE, "test")
    assert len(rows) == 24
    assert len({row["id"] for row in rows}) == 24
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
    [row] = load_problems(file, "train")
    assert isinstance(row["id"], str)


def test_load_problems_keeps_unicode_line_separators(tmp_path):
    file = tmp_path / "mine.jsonl"
    question = "one\u2028two\x85three?"
    row = {"question": question, "answer": "#### 1"}
    text = json.dumps(row, ensure_ascii=False)
    file.write_text(f"{text}\n{text}\n", encoding="utf-8")
    rows = load_problems(file, "train")
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


def test_load_problems_limit_takes_the_first():
    rows = load_problems("mini", "test")
    assert load_problems("mini", "test", limit=5) == rows[:5]
