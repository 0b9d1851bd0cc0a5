"""`python3 -m helpers evaluate`: refused before the work, or kept whole."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import tiny

from helpers import profiles
from helpers.cli import students as command
from helpers.results import read_results


@pytest.fixture
def place(tmp_path, monkeypatch) -> Path:
    """The tiny models as profile `mini`; six problems; no adapters."""
    monkeypatch.setattr(profiles, "RUNS", tmp_path / "runs")
    monkeypatch.setenv("DISTILL_RESULTS_DIR", str(tmp_path / "results"))
    small = replace(tiny.profile(tmp_path), name="mini")
    monkeypatch.setattr(command, "get_profile", lambda _: small)
    asked = tiny.problems(6)
    monkeypatch.setattr(command, "load_problems", lambda *_, limit: asked)
    student = tiny.plain_student
    arms = {"teacher": tiny.teacher, "teacher_sampled": tiny.teacher}
    monkeypatch.setattr(
        command, "load_arm", lambda arm, *_: arms.get(arm, student)()
    )
    return tmp_path


@pytest.mark.parametrize(
    "options",
    [
        "--arm My_Arm --adapter x",
        "--arm student_before --adapter x",
        "--write --limit 8",
        "--write --split validation",
        "--arm teacher_sampled --mode think",
    ],
)
def test_evaluate_refuses_before_the_work(place, monkeypatch, options):
    """It evaluated first, or overwrote the test's result, before."""
    monkeypatch.setattr(command, "load_arm", None)
    with pytest.raises(SystemExit) as stopped:
        command.score(options.split())
    assert stopped.value.code == 2 and read_results() == []


def test_each_way_of_asking_has_a_file_of_its_own(place, capsys):
    """`--mode think` overwrote the test's result, before."""
    adapter = f"--adapter={place}/final/"  # its slash and "=" made it fail
    for options in (
        ["--arm=student_before"],
        ["--arm=mine", adapter],
        ["--arm=student_before", "--mode=think"],
        ["--arm=teacher"],
        ["--arm=teacher_sampled", "--seed=7"],
    ):
        command.score([*options, "--write"])
    results = read_results()
    modes = {"teacher": None, "teacher_sampled": "sampled"}
    modes |= {"student_before": "at once", "student_before_think": "think"}
    assert {x.arm: x.mode for x in results} == modes | {"mine": None}
    assert "--adapter ADAPTER" in results[4].command
    assert str(place) not in results[4].command
    folder = place / "runs" / "mini" / "evaluation"
    path = folder / "teacher_sampled-test-teacher-seed7.jsonl"
    first = path.read_text("utf-8").strip().split("\n")[0]
    assert json.loads(first)["sampling"]["temperature"] == 0.6
    before = path.read_bytes()
    capsys.readouterr()
    command.score(["--arm", "teacher_sampled"])  # asks nothing again
    assert "teacher_sampled on test: " in capsys.readouterr().out
    assert path.read_bytes() == before
