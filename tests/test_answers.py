"""helpers.answers: the thought, the final answer, and exact equality."""

import json
import os
import re
from pathlib import Path

import pytest

from helpers.answers import (
    NO_SOLUTION,
    Trace,
    extract_answer,
    gold_answer,
    is_correct,
    split_trace,
)
from helpers.problems import load_problems
from helpers.profiles import DATA, ROOT

GRADED = DATA / "gsm8k" / "graded.jsonl"

TRACES = [
    ("<think>72 - 10</think> 62", Trace("72 - 10", "62", True)),
    ("72 - 10\n</think>\n\n62\n", Trace("72 - 10", "62", True)),
    ("<think>72 - 10 = 62, so", Trace("72 - 10 = 62, so", "", False)),
    ("<think>\n<think> a </think> 5", Trace("a", "5", True)),
    ("<think>a</think></think> 5", Trace("a", "5", True)),
    ("<think>\n\n</think>\n\n5", Trace("", "5", True)),
    ("</think>5", Trace("", "5", True)),
    ("Sure! <think>a</think> 5", Trace("a", "5", True)),
    ("<think>a</think> 5 <think>b", Trace("a 5 b", "", False)),
    ("<think>a</think>", Trace("a", "", True)),
    ("  The answer is 5. ", Trace(None, "The answer is 5.", False)),
    ("", Trace(None, "", False)),
]


@pytest.mark.parametrize(("text", "expected"), TRACES)
def test_split_trace_cases(text: str, expected: Trace) -> None:
    found = split_trace(text)
    spaced = found.thinking and re.sub(r"\s+", " ", found.thinking)
    assert Trace(spaced, found.answer, found.closed) == expected


def test_is_correct_agrees_with_the_graders_of_real_solutions():
    rows = [json.loads(line) for line in GRADED.read_text().splitlines()]
    ours = [is_correct(row["solution"], row["gold"]) for row in rows]
    assert ours == [row["correct"] for row in rows] and len(rows) == 100


EXTRACTED = {
    "commas": [("It costs 1,234 coins", "1234"), ("109,200,000", "109200000"),
        ("1, 2, 3", "3"), (r"\boxed{1{,}234}", "1234"),
        ("1\u202f234\u202f567", "1234567")],
    "currency": [("She pays $62.", "62"), ("€1,200.50", "1200.5"),
        ("12£", "12"), (r"\$18.00", "18"), ("28 dollars", "28"),
        ("USD 40", "40"), ("-$5", "-5"), ("$-5", "-5"),
        ("1.5 million dollars", "1500000")],
    "units": [("62 crayons", "62"), ("62crayons", "62"), ("50 m^2", "50"),
        ("50 m2", "50"), (r"$50 \text{ cm}^{2}$", "50"), ("5 km/h", "5"),
        ("He wins 7 points on the 3rd day", "7")],
    "percent": [("25%", "25"), (r"12.5\%", "12.5"), ("30 percent", "30")],
    "decimals": [("18.00", "18"), ("3.50", "3.5"), (".5", "0.5"),
        ("0.050", "0.05"), ("-0.25", "-0.25"), ("Rs.500", "500")],
    "fractions": [("1/2", "1/2"), ("2/4", "1/2"), ("10/2", "5"),
        ("24 / 3", "8"), (r"\frac{1}{2}", "1/2"), (r"\dfrac{3}{6}", "1/2"),
        (r"\frac12", "1/2"), (r"2\frac{1}{2}", "5/2"), ("2 1/2 hours", "5/2"),
        ("2½", "5/2"), ("-½", "-1/2"), (r"-\frac{1}{2}", "-1/2"),
        ("5/0", None)],
    "negative": [("-4", "-4"), ("\u22124 degrees", "-4"), ("negative 4", "-4"),
        ("10-4", "4"), ("10 - 4", "4"), ("x = -4", "-4"), ("-0", "0"),
        ("the total\u201462", "62")],
    "boxed": [(r"\boxed{62}", "62"),
        (r"\boxed{ x = 62 } and 72 were there", "62"),
        (r"\boxed{\text{72 crayons}}", "72"), (r"\boxed{\frac{1}{2}}", "1/2"),
        (r"\boxed{{{5}}}", "5"), (r"\boxed{3}, no: \boxed{4}", "4"),
        (r"\boxed{3 \times 4 = 12}", "12"), (r"\fbox{9}", "9"),
        (r"The total is 8. \boxed{unfinished", "8"), (r"8 \boxed{x}", "8"),
        (r"\boxed{5} #### 6. The answer is 7", "5")],
    "bold": [("**62**", "62"), ("**Answer:** 62, not 72", "62")],
    "hashes": [("3 * 24 = <<3*24=72>>72\n#### 62", "62"),
        ("#### 62\nThe answer is 5", "62"), ("#### $1,200 for 3 days", "1200"),
    ],
    "sentence": [("The answer is 62.", "62"),
        ("The answer is 62 crayons, as 72 - 10 = 62 and 10 went.", "62"),
        ("So the final answer is: 62 (of 72)", "62"),
        ("Answer: 62\n3 boxes", "62"), ("answer = 62; 5 left", "62"),
        ("The answer to question 3 is 62 of 70", "62"),
        ("The answer is 72 - 10 = 62", "62"), ("The answer is 10/2 = 5", "5"),
        ("The answer is 62 = 72 - 10", "62"),
        ("The answer is 3. Wait. The answer is 4. Or 5", "4"),
        ("The answer is\n62", "62"),
        ("He answered 5 questions. She is 12", "12")],
    "thought": [("<think>The answer is 5</think> The answer is 6", "6"),
        ("<think>no solution?</think> 6", "6"), ("5</think> nothing", None),
        (r"<think>\boxed{5}", None), (r"<think>\boxed{5}</think>", None),
        ("<think>a</think> 5 <think> 6", None)],
    "no solution": [(text, NO_SOLUTION) for text in (
        "no solution", "impossible", "The answer is no solution.",
        r"\boxed{\text{no solution}}", r"\boxed{\varnothing}",
        "#### no solution", "There is no valid solution for 3 buses",
        "The answer is: no solution, because 30 > 20.",
        "This has no integer solutions.",
        "That is impossible: 20 - 15 = 5 is less than 10.",
        "10 must give 12. 12 is more than 10. That cannot be.",
        "The conditions are contradictory (35 and 40).",
        "35 is not 40, a contradiction",
        "The problem is unsolvable with 100 pupils",
        "The system does not have a solution: 4 = 5",
        "Such numbers do not exist. 70 is too few",
        "It can\u2019t be solved for 70",
        "It is not possible to fill 3 buses",
        "The answer is 5. But 5 is a contradiction, so no solution.",
        "The 3 equations are inconsistent.")],
    "a number beats no solution": [
        ("It looks impossible, but the answer is 5.", "5"),
        (r"At first there is no solution. Yet \boxed{5}", "5"),
        ("Half a box is impossible, so he buys 3 boxes", "3"),
        ("The total cannot be negative. Therefore 7", "7"),
        ("This is not a contradiction: 5", "5"),
        ("It is not impossible; 5", "5"),
        ("The answer is 5; there is no other solution.", "5"),
        (r"\boxed{5}. It cannot be larger.", "5")],
    "a part is not its whole": [
        ("So 62 crayons are left out of 72.", "62"),
        ("62 crayons are left of 72.", "62"),
        ("62 of the 72 crayons are left.", "62"),
        ("62 of his 72 crayons. Now he buys 3.", "3"),
        ("That is 62. Out of 72.", "72"),  # another sentence
        ("He sold 5 pens for a profit of 40.", "40"),
        ("5 + 67 is a total of 72.", "72"),
        ("It cannot be changed, it is 5 dollars.", "5"),
        ("29 is not 25. This cannot be.", "no solution")],
    "several numbers": [("3 boxes of 24 make 72, less 10 is 62.", "62")],
    "no number": [("I do not know.", None), ("", None), ("$", None)],
    "repetition": [  # minutes, or an error, when it is searched carelessly
        (sign * 6000, None) for sign in ("9", r"\boxed{", "answer is ")
    ],
}  # fmt: skip


@pytest.mark.parametrize("kind", EXTRACTED)
def test_extract_answer_kind(kind: str) -> None:
    cases = EXTRACTED[kind]
    found = [(text, extract_answer(text)) for text, _ in cases]
    assert found == cases


GOLD = [
    ("18", "18"), (18, "18"), ("#### 18", "18"), ("####18", "18"),
    ("a <<2*9=18>>18\n#### 18", "18"), ("#### 1,234", "1234"),
    ("#### 2,520,000", "2520000"), ("#### -3", "-3"), ("-3", "-3"),
    ("#### \u22123", "-3"), ("#### $5", "5"), ("#### 5%", "5"),
    ("#### 5 apples", "5"), ("#### 5.", "5"), ("#### 5.0", "5"),
    ("#### 0.5", "0.5"), ("#### .5", "0.5"), ("#### 1/2", "1/2"),
    ("#### 2 1/2", "5/2"), ("#### 0", "0"), ("#### -0", "0"),
    ("#### 007", "7"), ("#### 3\n", "3"), ("####  3 ", "3"),
    ("#### 1\n#### 2", "2"), ("#### no solution", NO_SOLUTION),
    ("No Solution", NO_SOLUTION), ("impossible", NO_SOLUTION),
    ("#### 10,000.25", "10000.25"), ("#### 1,080 dollars", "1080"),
    ("9 of them. #### 4", "4"), ("#### 109,200,000", "109200000"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "expected"), GOLD)
def test_gold_answer_odd_writing(text: str | int, expected: str) -> None:
    assert gold_answer(text) == expected


@pytest.mark.parametrize("text", ["", "#### ", "#### unknown", "5 ####"])
def test_gold_answer_without_value_says_the_cure(text: str) -> None:
    with pytest.raises(ValueError, match="#### 72"):
        is_correct("5", text)


@pytest.mark.parametrize(
    ("text", "gold", "expected"),
    [
        ("<think>3*24-10</think> 62", "... #### 62", True),
        ("$18.00", "18", True),
        ("18.0", 18, True),
        ("0.5", "1/2", True),
        (r"\boxed{\frac{1}{2}}", "0.5", True),
        ("25%", "25", True),
        ("1,234 dollars", "#### 1,234", True),
        ("33.33", "100/3", False),
        ("4", "-4", False),
        ("0.1", "0.1000000000000000000001", False),
        ("impossible", "#### no solution", True),
        ("no solution", "62", False),
        ("62", "no solution", False),
        ("no idea", "no solution", False),
        ("<think>62", "62", False),
        ("", "62", False),
    ],
)
def test_is_correct_cases(text: str, gold: str | int, expected: bool) -> None:
    assert is_correct(text, gold) is expected


def test_gold_answer_parses_all_of_gsm8k() -> None:
    beside = ROOT.parent / "shared" / "gsm8k"
    folder = Path(os.environ.get("DISTILL_GSM8K", beside))
    if not (folder / "train.jsonl").exists():
        pytest.skip("no real GSM8K here: name its folder in DISTILL_GSM8K")
    names = "train", "validation", "test"
    splits = [load_problems(folder, name) for name in names]
    assert [len(rows) for rows in splits] == [7000, 473, 1319]
    rows = [row for rows in splits for row in rows]
    assert len({row["id"] for row in rows}) == 8792
    for answer in [row["answer"] for row in rows]:
        written = answer.rpartition("####")[2].strip().replace(",", "")
        assert gold_answer(answer) == written
        assert is_correct(f"<think>1</think> It is {written}.", answer)
