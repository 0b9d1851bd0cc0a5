"""The cases of notebook 01 see the usual mistakes."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from helpers.exercises import check

WRONG = [
    ("01.1", lambda same, gives: ["response", "logit", "feature"]),
    ("01.1", lambda same, gives: ["response"]),
    ("01.2", lambda z, t: torch.special.entr((z / t).softmax(-1)).sum()),
    ("01.2", lambda z, t: torch.special.entr(z.softmax(-1)).sum() / 0.6931),
    ("01.3", lambda p, q, a: torch.sum(p * (p / q).log())),
    ("01.3", lambda p, q, a: torch.sum(q * (q / (a * p + (1 - a) * q)).log())),
    ("01.4", lambda z, v, t: ((z / t).softmax(-1) - (v / t).softmax(-1)) / t),
    ("01.4", lambda z, v, t: t * ((v / t).softmax(-1) - (z / t).softmax(-1))),
    ("01.4", lambda z, v, t: z.softmax(-1) - v.softmax(-1)),
]


@pytest.mark.parametrize(("name", "answer"), WRONG)
def test_exercises_see_the_usual_mistakes(
    name: str, answer: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    check(name, answer)
    assert capsys.readouterr().out.startswith("not yet: ")
