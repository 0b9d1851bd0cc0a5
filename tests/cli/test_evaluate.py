"""`python3 -m helpers evaluate`: refused before the work, or kept whole."""

from __future__ import annotations

import json
from dataclasses import replace
from types import SimpleNamespace

import pytest
import tiny

from helpers import profiles
from helpers.cli import evaluate as command
from helpers.results import read_results


@pytest.fixture
def place(tmp_path, monkeypatch):
    """The tiny models as profile `mini`; six problems; no adapters."""
    monkeypatch.setattr(profiles, "RUNS", tmp_path / "runs")
    monkeypatch.setenv("DISTILL_RESULTS_DIR", str(tmp_path / "results"))
    small = replace(tiny.profile(tmp_path), name="mini")
    monkeypatch.setattr(command, "get_profile", lambda _: small)
    monkeypatch.setattr(
        command, "load_problems", lambda *_, limit: tiny.problems(6)[:limit]
    )
    arms = {"teacher": tiny.teacher, "teacher_sampled": tiny.teacher}
    monkeypatch.setattr(
        command,
        "load_arm",
        lambda arm, *_: arms.get(arm, tiny.plain_student)(),
    )
    return SimpleNamespace(results=tmp_path / "results", root=tmp_path)


@pytest.mark.parametrize(
    "options",
    [
        ["--arm", "My_Arm", "--adapter", "x"],
        ["--write", "--limit", "8"],
        ["--write", "--split", "validation"],
        ["--limit", "0"],
        ["--arm", "teacher_sampled", "--mode", "think"],
    ],
)
def test_evaluate_refuses_before_the_work(place, monkeypatch, options):
    """It evaluated first, or overwrote the test's result, before."""
    monkeypatch.setattr(command, "load_arm", None)
    with pytest.raises(SystemExit) as stopped:
        command.main(options)
    assert stopped.value.code == 2
    assert read_results(place.results) == []


def test_evaluate_writes_without_the_adapters_path(place):
    """A slash or an equals sign made it fail, after the work, before."""
    assert command.main(["--write", f"--adapter={place.root}/final/"]) == 0
    (result,) = read_results(place.results)
    assert "--adapter ADAPTER" in result.command
    assert str(place.root) not in result.command


def test_evaluate_writes_each_way_of_asking_to_a_file_of_its_own(place):
    """`--mode think` overwrote the test's result, before."""
    for options in (
        ["--arm", "student_before"],
        ["--arm", "student_before", "--mode", "think"],
        ["--arm", "teacher"],
        ["--arm", "teacher_sampled", "--seed", "7"],
    ):
        command.main([*options, "--write"])
    assert [(one.arm, one.mode) for one in read_results(place.results)] == [
        ("teacher", None),
        ("teacher_sampled", "sampled"),
        ("student_before", "at once"),
        ("student_before_think", "think"),
    ]
    folder = place.root / "runs" / "mini" / "evaluation"
    name = "teacher_sampled-test-teacher-seed7.jsonl"
    first = (folder / name).read_text("utf-8").strip().split("\n")[0]
    assert json.loads(first)["sampling"]["temperature"] == 0.6


def test_evaluate_again_asks_nothing_again(place, capsys):
    command.main(["--arm", "teacher"])
    files = sorted(place.root.rglob("*.jsonl"))
    assert len(files) == 2  # of the test and of the unseen kinds
    before = [path.read_bytes() for path in files]
    first = capsys.readouterr().out
    command.main(["--arm", "teacher"])
    assert capsys.readouterr().out == first
    assert [path.read_bytes() for path in files] == before
