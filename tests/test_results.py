"""helpers.results: files that are whole or absent, and honest tables."""

import json
import subprocess
import sys
from dataclasses import asdict, replace

import pytest
import tiny
from test_evaluate import COMPLETIONS, MADE, PROBLEMS

from helpers import CourseError
from helpers.evaluate import Evaluation
from helpers.profiles import PROFILES, ROOT
from helpers.results import (
    RERUN,
    read_results,
    table_markdown,
    table_text,
    to_result,
    write_result,
)

AFTER = tiny.result(
    "student_after",
    n=300,
    correct=248,
    peak_memory_mb=612.4,
    command="python3 -m helpers evaluate --arm student_after",
    date="2026-11-24",
    splits={"heldout": {"n": 100, "correct": 70}},
    mode="think",
)


def test_to_result_keeps_one_flag_a_problem_for_every_split(tmp_path):
    """The splits had counts only, before."""
    other = Evaluation(PROBLEMS[:2], COMPLETIONS[:2], 1.0)
    options = {"seed": 7, "command": AFTER.command, "notes": "One."}
    options |= {"profile": replace(PROFILES["laptop"], traces=5)}
    parts = {"test": MADE, "unseen": other}
    result = to_result("student_before", parts, **options)
    assert (result.n, result.correct, result.right) == (6, 3, "101001")
    assert (result.seconds, result.peak_memory_mb) == (12.3, 612.4)
    half = {"n": 2, "correct": 1, "right": "10"}
    assert result.splits == {"impossible": half, "unseen": half}
    assert result.notes == "One. DISTILL_TRACES=5"
    unmeasured = to_result("teacher", {"test": other}, **options)
    assert unmeasured.peak_memory_mb is None
    write_result(result, tmp_path)
    assert read_results(tmp_path) == [result]


def test_write_result_then_read_gives_the_same(tmp_path, monkeypatch):
    monkeypatch.setenv("DISTILL_RESULTS_DIR", str(tmp_path))
    path = write_result(AFTER)
    assert path == tmp_path / "mini-student_after-seed7.json"
    content = json.loads(path.read_text("utf-8"))
    assert content["accuracy"] == pytest.approx(248 / 300, abs=1e-6)
    assert content["interval"] == pytest.approx([0.7797, 0.8653], abs=1e-4)
    assert read_results() == [AFTER]  # its split has no flags
    write_result(replace(AFTER, correct=250))
    assert [result.correct for result in read_results()] == [250]
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    "changes",
    [
        {"correct": 301},
        {"right": "1" * 300},
        {"splits": {"heldout": {"n": 2, "correct": 1, "right": "00"}}},
        {"seconds": float("nan")},
        {"command": "python train.py"},
        {"command": "python3 -m helpers sft --output /srv/x"},
        {"notes": "left in C:\\Temp"},
        {"colour": "red"},
        {"seed": 8},
        {"splits": []},
        {"splits": {"heldout": {"n": 3}}},
        {"date": "24 November"},
        {"peak_memory_mb": "many"},
        {"command": None},
    ],
)
def test_read_results_names_the_broken_file_and_the_cure(tmp_path, changes):
    path = tmp_path / AFTER.file_name
    whole = json.dumps(asdict(AFTER) | changes)
    for text in (whole, "", whole[:-9], "[]", "\xff", "[" * 100_000):
        path.write_bytes(text.encode("latin-1"))
        with pytest.raises(CourseError, match=f"{path.name}(.|\n)*{RERUN}"):
            read_results(tmp_path)


def test_read_results_course_order(tmp_path):
    assert RERUN in table_text(tmp_path)  # nothing is there yet
    arms = ["teacher", "teacher_sampled", "student_before", "student_after"]
    arms += ["sft_gold", "logit_cached", "feature_mse", "zeta"]
    for arm in sorted(arms):
        write_result(replace(AFTER, arm=arm), tmp_path)
    write_result(replace(AFTER, arm="teacher", profile="full"), tmp_path)
    *mini, full = read_results(tmp_path)
    assert [result.arm for result in mini] == arms
    assert (full.profile, full.arm) == ("full", "teacher")


def test_tables_one_row_an_arm_and_one_a_split():
    _, first, second = table_text([AFTER]).splitlines()
    assert first.split()[:4] == ["student_after", "(think)", "300", "82.7%"]
    wanted = "student_after: heldout 100 70.0% 60.4-78.1"
    assert second.split() == wanted.split()
    other = replace(AFTER, seed=8, profile="full")
    header, *_, row, _ = table_markdown([AFTER, other]).splitlines()
    assert header.startswith("| arm | profile | seed | n |")
    assert row.startswith("| student_after (think) | full | 8 | 300 |")
    assert row.endswith(f"| `{AFTER.command}` |")


def test_table_markdown_keeps_hostile_text_in_its_cell():
    """A newline, `|` and a script of a command reached README, before."""
    command = "python3 -m helpers evaluate\n\n| a | `<script>x</script>"
    split = {"<b>|\n": {"n": 1, "correct": 1}}
    table = table_markdown([replace(AFTER, command=command, splits=split)])
    lines = table.splitlines()
    assert len(lines) == 4
    bars = {line.replace(r"\|", "").count("|") for line in lines}
    assert bars == {8} and "<" not in table.replace("<br>", "")
    assert lines[2].count("`") == 2


def test_results_and_statistics_do_without_torch():
    """`helpers results` waited for torch, before."""
    code = "import sys, helpers.cli.results; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
