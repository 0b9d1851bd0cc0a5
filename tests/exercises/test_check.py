"""What a learner reads, for every kind of answer; every shipped solution."""

import re
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import nbformat
import pytest
import torch

from helpers.exercises import check, chosen, progress
from helpers.exercises.check import (
    DONE,
    EXERCISES,
    UNTOUCHED,
    Exercise,
    exercises_of,
    judge,
)
from helpers.profiles import ROOT

NOTEBOOKS = ("00", "01", "02", "03", "04", "05", "06", "07", "08", "10", "11")
Case = tuple[Any, Any]


def verdict(answer: Callable[..., Any], *cases: Case) -> str:
    """What is said about an answer to an exercise with these cases."""
    return judge(answer, Exercise("a title", "think again", [*cases]))[1]


def double(x: Any) -> Any:
    return 2 * x


@pytest.mark.parametrize(
    ("answer", "case"),
    [
        (double, (3, 6)),
        (double, ((0.1,), 0.20001)),
        (double, (torch.ones(2), torch.full((2,), 2.0))),
        (lambda x: (x, [x, 1], "a"), (2, (2, [2.0, 1], "a"))),
        (lambda x: {"a": x}, (2, {"a": 2})),
        (lambda x: float("nan"), (2, float("nan"))),
        (lambda x: [0.5, torch.tensor(0.5)], (2, torch.tensor([0.5, 0.5]))),
    ],
)
def test_check_right_answers(answer: Any, case: Case) -> None:
    assert verdict(answer, case, case) == "correct: 2 of 2 cases"


@pytest.mark.parametrize(
    ("answer", "case", "part"),
    [
        (lambda x: x + 1, (3, 6), "for (3) you return 4: "),
        (lambda x: 1.05, (3, 1.0), "difference: 0.05"),
        (lambda x: 1.05 * torch.ones(3), (3, torch.ones(3)), "1.04"),
        (lambda x: "6", (3, 6), "you return '6', not 6"),
        (lambda x: 1 / 0, (3, 6), "ZeroDivisionError: division"),
        (lambda: 1, (3, 6), "TypeError"),
        (lambda x: [1], (1, [1, 2]), "you return [1]: "),
        (lambda x: 2 * torch.eye(4), (1, torch.eye(4)), "item [0][0]"),
        (lambda x: {"a": 1}, (1, {"a": 2}), "item ['a']"),
    ],
)
def test_check_wrong_answers_say_why(
    answer: Any, case: Case, part: str
) -> None:
    said = verdict(answer, case)
    assert part in said and said.startswith("not yet: for (")
    assert said.endswith("(0 of 1 cases pass). Hint: think again")


@pytest.mark.parametrize(
    ("name", "mistaken"),
    [
        ("01.1", lambda same, gives: ["response", "logit", "feature"]),
        ("01.2", lambda z, t: torch.special.entr((z / t).softmax(-1)).sum()),
        ("01.3", lambda p, q, a: torch.sum(p * (p / q).log())),
        ("01.4", lambda z, v, t: z.softmax(-1) - v.softmax(-1)),
    ],
)
def test_cases_see_the_usual_mistakes(name: str, mistaken: Any) -> None:
    status, _ = judge(mistaken, exercises_of("01")[name])
    assert status == "not yet"


@pytest.fixture
def untouched() -> Iterator[None]:
    """No exercise attempted, before and afterwards."""
    yield
    for item in EXERCISES.values():
        item.status = UNTOUCHED


def test_progress_counts_what_is_done(
    untouched: None, capsys: pytest.CaptureFixture[str]
) -> None:
    check("00.1", lambda a, b: a == b)
    check("00.2", lambda before, after, top: (after - before) / (top - before))
    progress("00")
    printed = capsys.readouterr().out.splitlines()
    wrong, right, count, first, second, third = printed
    assert wrong.startswith("not yet") and right.startswith("correct")
    assert "1 of 3" in count
    assert "00.1" in first and first.endswith("not yet")
    assert "00.2" in second and second.endswith("done")
    assert "00.3" in third and third.endswith(UNTOUCHED)


def code(path: Any) -> list[str]:
    cells = nbformat.read(path, as_version=4).cells
    return [cell.source for cell in cells if cell.cell_type == "code"]


@pytest.mark.parametrize("notebook", NOTEBOOKS)
def test_solutions_pass_their_checks(
    notebook: str, untouched: None, capsys: pytest.CaptureFixture[str]
) -> None:
    path = ROOT / "notebooks" / "solutions" / f"{notebook}_solutions.ipynb"
    scope: dict[str, Any] = {}
    for source in code(path):
        exec(source, scope)
    count = len(exercises_of(notebook))
    printed = capsys.readouterr().out
    assert count and f"{count} of {count} done" in printed


@pytest.mark.parametrize("notebook", NOTEBOOKS)
def test_untouched_stubs_are_not_attempted(
    notebook: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (path,) = (ROOT / "notebooks").glob(f"{notebook}_*.ipynb")
    stubs = [source for source in code(path) if "\ncheck(" in source]
    for source in stubs:
        names = {"check": check, "chosen": chosen}
        exec(f"import torch\n{source}", names)
    printed = capsys.readouterr().out.splitlines()
    said = [line for line in printed if "From here on: the ref" not in line]
    assert said == [UNTOUCHED] * len(stubs) and stubs


@pytest.mark.parametrize("notebook", NOTEBOOKS)
def test_references_pass_their_checks_and_run_where_nobody_tried(
    notebook: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def untried(*_: Any) -> None:
        raise NotImplementedError

    for name, item in exercises_of(notebook).items():
        assert judge(item.reference, item)[0] == DONE
        assert chosen(name, untried) is item.reference
        own = partial(item.reference)
        assert chosen(name, own) is own
        printed = capsys.readouterr().out.splitlines()
        assert "the reference's" in printed[0] and "your own" in printed[1]


@pytest.mark.parametrize("notebook", NOTEBOOKS)
def test_solution_in_the_notebook_is_the_one_in_solutions(
    notebook: str,
) -> None:
    """One solution an exercise, told twice in the same words of Python."""
    (path,) = (ROOT / "notebooks").glob(f"{notebook}_*.ipynb")
    cells = nbformat.read(path, as_version=4).cells
    prose = "\n".join(c.source for c in cells if c.cell_type == "markdown")
    told = re.findall(
        r"<summary>Solution</summary>\s*```python\n(.*?)```", prose, re.DOTALL
    )
    shown = "\n".join(
        code(ROOT / "notebooks" / "solutions" / f"{notebook}_solutions.ipynb")
    )
    assert len(told) == len(exercises_of(notebook))
    assert [text for text in told if text.strip() not in shown] == []
