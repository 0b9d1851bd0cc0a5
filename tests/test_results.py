"""helpers.results: files that are whole or absent, and honest tables."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from test_evaluate import COMPLETIONS, MADE, PROBLEMS

from helpers import CourseError
from helpers.evaluate import Evaluation
from helpers.profiles import PROFILES
from helpers.results import (
    Result,
    read_results,
    results_directory,
    table_markdown,
    table_text,
    to_result,
    write_result,
)

AFTER = Result(
    arm="student_after",
    profile="mini",
    seed=7,
    n=300,
    correct=248,
    seconds=41.7,
    peak_memory_mb=612.4,
    command="python3 -m helpers evaluate --arm student_after",
    versions={"torch": "2.13.0"},
    date="2026-11-24",
    splits={"heldout": {"n": 100, "correct": 70}},
    mode="think",
    notes="seed 7 only",
)
TEACHER = replace(
    AFTER,
    arm="teacher",
    correct=285,
    splits={},
    mode=None,
    peak_memory_mb=None,
    command="python3 -m helpers evaluate --arm teacher",
)
COMMAND = "python3 -m helpers evaluate"


def stored(arm: str, *evaluations: Evaluation, **changes: Any) -> Result:
    settings = {
        "profile": PROFILES["mini"],
        "seed": 7,
        "command": COMMAND + " ",
    }
    return to_result(arm, list(evaluations), **{**settings, **changes})


def test_to_result_keeps_one_flag_a_problem_for_every_split(tmp_path):
    """The splits had counts only, before."""
    other = Evaluation(PROBLEMS[:2], COMPLETIONS[:2], 1.0)
    result = stored("student_before", MADE, other)
    assert (result.n, result.correct, result.right) == (6, 3, "101001")
    assert (result.seconds, result.peak_memory_mb) == (12.3, 612.4)
    assert result.splits == {
        "impossible": {"n": 2, "correct": 1, "right": "10"},
        "held-out templates": {"n": 2, "correct": 1, "right": "10"},
    }
    assert stored("student_before", other).splits == {}
    write_result(result, tmp_path)
    assert read_results(tmp_path) == [result]
    assert result.notes == ""


def test_to_result_keeps_the_largest_peak_of_its_evaluations():
    unknown = Evaluation(PROBLEMS, COMPLETIONS, 1.0)
    more, less = replace(MADE, peak_mib=700.0), replace(MADE, peak_mib=500.0)
    assert stored("teacher", MADE, more).peak_memory_mb == 700.0
    assert stored("teacher", MADE, less, unknown).peak_memory_mb == 612.4
    assert stored("teacher", unknown).peak_memory_mb is None


def test_to_result_notes_what_is_not_the_profiles_own():
    laptop = PROFILES["laptop"]
    changed = replace(laptop, student="/models/my-gemma", traces=50)
    result = stored("teacher", MADE, profile=changed, notes="One.")
    assert result.profile == "laptop"
    assert result.notes == "One. DISTILL_STUDENT=my-gemma DISTILL_TRACES=50"


def test_write_result_then_read_gives_the_same(tmp_path):
    path = write_result(AFTER, tmp_path)
    assert path == tmp_path / "mini-student_after-seed7.json"
    content = json.loads(path.read_text("utf-8"))
    assert content["accuracy"] == pytest.approx(248 / 300, abs=1e-6)
    assert content["interval"] == pytest.approx([0.7797, 0.8653], abs=1e-4)
    assert read_results(tmp_path) == [AFTER]  # its split has no flags
    write_result(replace(AFTER, correct=250), tmp_path)
    assert [result.correct for result in read_results(tmp_path)] == [250]
    assert list(tmp_path.iterdir()) == [path]


def test_write_result_full_disk_keeps_the_old_file(tmp_path, monkeypatch):
    path = write_result(AFTER, tmp_path)
    before = path.read_bytes()

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_result(replace(AFTER, correct=1), tmp_path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    "changes",
    [
        {"correct": 301},
        {"n": 0, "correct": 0},
        {"right": "1" * 300},
        {"splits": {"heldout": {"n": 3, "correct": 4}}},
        {"splits": {"heldout": {"n": 2, "correct": 1, "right": "00"}}},
        {"arm": "student after"},
        {"profile": "../mini"},
        {"seed": "7"},
        {"mode": "quick"},
        {"seconds": -1},
        {"seconds": float("nan")},
        {"command": "python train.py"},
        {"command": "python3 -m helpers sft --output /srv/x"},
        {"command": "python3 -m helpers sft --output=~/x"},
        {"notes": "kept in C:\\Temp"},
    ],
)
def test_result_refuses(changes):
    with pytest.raises(CourseError, match="student"):
        replace(AFTER, **changes)


@pytest.mark.parametrize(
    "changes",
    [
        {"correct": 301},
        {"seconds": "DROP"},
        {"colour": "red"},
        {"seed": 8},
        {"splits": []},
        {"splits": {"heldout": {"n": 3}}},
        {"splits": {"heldout": 4}},
        {"date": "24 November"},
        {"peak_memory_mb": "many"},
        {"command": None},
    ],
)
def test_read_results_names_the_broken_file_and_the_cure(tmp_path, changes):
    path = write_result(AFTER, tmp_path)
    content = json.loads(path.read_text("utf-8")) | changes
    content = {name: v for name, v in content.items() if v != "DROP"}
    path.write_text(json.dumps(content), "utf-8")
    with pytest.raises(CourseError, match=f"{path.name}(.|\n)*{COMMAND}"):
        read_results(tmp_path)


@pytest.mark.parametrize(
    "text", ["", '{"arm": "tea', "[]", "\x00\xff", "[" * 100_000]
)
def test_read_results_foreign_text(tmp_path, text):
    path = tmp_path / "mini-teacher-seed7.json"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(CourseError, match=path.name):
        read_results(tmp_path)


def test_read_results_course_order(tmp_path):
    arms = ["zeta", "feature_mse", "sft_gold", "student_after", "teacher"]
    arms += ["logit_cached", "student_before", "teacher_sampled"]
    for arm in arms:
        write_result(replace(AFTER, arm=arm), tmp_path)
    write_result(replace(AFTER, arm="teacher", profile="full"), tmp_path)
    *found, last = read_results(tmp_path)
    assert (last.profile, last.arm) == ("full", "teacher")
    assert [result.arm for result in found] == [
        *("teacher", "teacher_sampled", "student_before", "student_after"),
        *("sft_gold", "logit_cached", "feature_mse", "zeta"),
    ]


def test_results_directory_environment_variable(tmp_path, monkeypatch):
    monkeypatch.setenv("DISTILL_RESULTS_DIR", str(tmp_path))
    assert results_directory() == tmp_path
    monkeypatch.delenv("DISTILL_RESULTS_DIR")
    assert results_directory().parts[-2:] == ("data", "results")


def test_table_text_exact(tmp_path):
    write_result(AFTER, tmp_path)
    write_result(TEACHER, tmp_path)
    lines = table_text(tmp_path).splitlines()
    assert lines[0].split() == (
        "arm n accuracy 95% CI seconds peak MiB command".split()
    )
    teacher = "teacher 300 95.0% 91.9-96.9 42 -".split()
    assert lines[2].split()[:6] == teacher
    assert lines[3].startswith("student_after (think)   300     82.7%")
    assert lines[4].split() == (
        "student_after: heldout 100 70.0% 60.4-78.1".split()
    )
    assert lines[2].index("300") == lines[3].index("300")


def test_table_markdown_is_a_table(tmp_path):
    write_result(AFTER, tmp_path)
    lines = table_markdown(tmp_path).splitlines()
    assert len({line.count("|") for line in lines}) == 1
    assert "| `python3 -m helpers evaluate --arm student_after` |" in lines[2]


def test_table_markdown_keeps_hostile_text_in_its_cell():
    """A newline, `|` and a script of a command reached README, before."""
    command = "python3 -m helpers evaluate\n\n| a | `<script>x</script>"
    split = {"<b>|\n": {"n": 1, "correct": 1}}
    table = table_markdown(
        results=[replace(AFTER, command=command, splits=split)]
    )
    lines = table.splitlines()
    assert len(lines) == 4
    bars = {line.replace(r"\|", "").count("|") for line in lines}
    assert bars == {8} and "<" not in table.replace("<br>", "")
    assert lines[2].count("`") == 2


def test_tables_show_profile_and_seed_only_when_they_differ():
    other = replace(AFTER, seed=8, profile="full")
    assert "seed" not in table_markdown(results=[AFTER])
    header = table_markdown(results=[AFTER, other]).splitlines()[0]
    assert header.startswith("| arm | profile | seed | n |")


def test_tables_without_results_name_the_command(tmp_path):
    assert COMMAND in table_text(tmp_path)
    assert table_markdown(tmp_path) == table_text(tmp_path)


def test_results_and_statistics_do_without_torch():
    """`helpers results` waited for torch, before."""
    code = "import sys, helpers.cli.results; print('torch' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[1],
    )
    assert done.stdout.strip() == "False", done.stderr
