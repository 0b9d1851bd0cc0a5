"""What a learner reads, for every kind of answer; every shipped solution."""

import re
from collections.abc import Callable
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
each = pytest.mark.parametrize("notebook", NOTEBOOKS)


def verdict(answer: Callable[..., Any], *cases: tuple[Any, Any]) -> str:
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
def test_check_right_answers(answer, case):
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
def test_check_wrong_answers_say_why(answer, case, part):
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
def test_cases_see_the_usual_mistakes(name, mistaken):
    assert judge(mistaken, exercises_of("01")[name])[0] == "not yet"


@pytest.fixture
def printed(capsys):
    """The lines printed so far; no exercise is attempted before or after."""
    yield lambda: capsys.readouterr().out.splitlines()
    for item in EXERCISES.values():
        item.status = UNTOUCHED


def test_progress_counts_what_is_done(printed):
    check("00.1", lambda a, b: a == b)
    check("00.2", lambda before, after, top: (after - before) / (top - before))
    progress("00")
    wrong, right, count, first, second, third = printed()
    assert wrong.startswith("not yet") and right.startswith("correct")
    assert "1 of 3" in count
    assert "00.1" in first and first.endswith("not yet")
    assert "00.2" in second and second.endswith("done")
    assert "00.3" in third and third.endswith(UNTOUCHED)


def sources(folder: str, pattern: str, kind: str = "code") -> list[str]:
    """The cells of this kind of the one notebook of that name."""
    (path,) = (ROOT / folder).glob(f"{pattern}_*.ipynb")
    cells = nbformat.read(path, as_version=4).cells
    return [cell.source for cell in cells if cell.cell_type == kind]


@each
def test_solutions_pass_and_are_those_told(notebook, printed):
    """One solution an exercise, told twice in the same words of Python."""
    solutions = sources("notebooks/solutions", notebook)
    scope: dict[str, Any] = {}
    for source in solutions:
        exec(source, scope)
    count = len(exercises_of(notebook))
    assert count and f"{count} of {count} done" in "\n".join(printed())
    told = re.findall(
        r"<summary>Solution</summary>\s*```python\n(.*?)```",
        "\n".join(sources("notebooks", notebook, "markdown")),
        re.DOTALL,
    )
    assert len(told) == count
    shown = "\n".join(solutions)
    assert [text for text in told if text.strip() not in shown] == []


@each
def test_untouched_stubs_are_not_attempted(notebook, printed):
    cells = sources("notebooks", notebook)
    stubs = [source for source in cells if "\ncheck(" in source]
    for source in stubs:
        names = {"check": check, "chosen": chosen}
        exec(f"import torch\n{source}", names)
    said = [line for line in printed() if "From here on: the ref" not in line]
    assert said == [UNTOUCHED] * len(stubs) and stubs


@each
def test_references_pass_and_run_where_nobody_tried(notebook, printed):
    def untried(*_: Any) -> None:
        raise NotImplementedError

    for name, item in exercises_of(notebook).items():
        assert judge(item.reference, item)[0] == DONE
        assert chosen(name, untried) is item.reference
        own = partial(item.reference)
        assert chosen(name, own) is own
        reference, mine = printed()
        assert "the reference's" in reference and "your own" in mine
