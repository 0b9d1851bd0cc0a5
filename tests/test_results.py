"""helpers.results: files that are whole or absent, and honest tables."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from helpers import results
from helpers.results import (
    Result,
    ResultFileError,
    read_results,
    results_directory,
    table_markdown,
    table_text,
    update_readme,
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
README = (
    "# Course\n\n<!-- results:start -->\nold\n<!-- results:end -->\n\nEnd\n"
)


def _edit(path: Path, **changes: Any) -> None:
    content = json.loads(path.read_text("utf-8")) | changes
    kept = {name: value for name, value in content.items() if value != "DROP"}
    path.write_text(json.dumps(kept), "utf-8")


def test_write_result_then_read_gives_the_same(tmp_path: Path) -> None:
    path = write_result(AFTER, tmp_path)
    assert path == tmp_path / "mini-student_after-seed7.json"
    assert read_results(tmp_path) == [AFTER]


def test_write_result_stores_accuracy_and_interval(tmp_path: Path) -> None:
    content = json.loads(write_result(AFTER, tmp_path).read_text("utf-8"))
    assert content["accuracy"] == pytest.approx(248 / 300, abs=1e-6)
    assert content["interval"] == pytest.approx([0.7797, 0.8653], abs=1e-4)


def test_write_result_replaces_and_leaves_no_draft(tmp_path: Path) -> None:
    write_result(AFTER, tmp_path)
    write_result(replace(AFTER, correct=250), tmp_path)
    assert [result.correct for result in read_results(tmp_path)] == [250]
    assert len(list(tmp_path.iterdir())) == 1


def test_write_result_full_disk_keeps_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_result(AFTER, tmp_path)
    before = path.read_bytes()

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ResultFileError, match=r"No space left .*DISTILL_RES"):
        write_result(replace(AFTER, correct=1), tmp_path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_write_result_into_a_file_says_the_cure(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file, not a folder", "utf-8")
    with pytest.raises(ResultFileError, match="DISTILL_RESULTS_DIR"):
        write_result(AFTER, tmp_path / "taken")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"correct": 301}, "between 0 and n"),
        ({"n": 0, "correct": 0}, "between 0 and n"),
        ({"correct": True}, "between 0 and n"),
        ({"splits": {"heldout": {"n": 3, "correct": 4}}}, "between 0 and n"),
        ({"splits": {"heldout": 4}}, "splits are"),
        ({"date": "24 November"}, "YYYY-MM-DD"),
        ({"arm": "student after"}, "lower_case"),
        ({"profile": "../mini"}, "lower_case"),
        ({"seed": "7"}, "whole number"),
        ({"mode": "quick"}, "'think', 'at once'"),
        ({"seconds": -1}, "seconds is -1"),
        ({"seconds": float("nan")}, "seconds is nan"),
        ({"peak_memory_mb": "many"}, "peak_memory_mb is 'many'"),
        ({"command": "python train.py"}, "the command"),
        ({"command": "python3 -m helpers sft --output /srv/x"}, "a path of"),
        ({"command": "python3 -m helpers sft --output=~/x"}, "a path of"),
        ({"notes": "kept in C:\\Temp"}, "a path of"),
    ],
)
def test_write_result_rejects(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ResultFileError, match=message):
        write_result(replace(AFTER, **changes), tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"accuracy": 0.9}, "contradict"),
        ({"interval": [0.1, 0.2]}, "contradict"),
        ({"interval": None}, "contradict"),
        ({"interval": 5}, "contradict"),
        ({"correct": 200}, "contradict"),
        ({"seconds": "DROP"}, "it lacks seconds"),
        ({"versions": "DROP"}, "it lacks versions"),
        ({"colour": "red"}, "unknown colour"),
        ({"seed": 8}, "mini-student_after-seed8.json"),
        ({"splits": []}, "splits are"),
        ({"versions": "2.13"}, "versions is '2.13'"),
    ],
)
def test_read_results_names_file_and_cure(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    path = write_result(AFTER, tmp_path)
    _edit(path, **changes)
    with pytest.raises(ResultFileError, match=message) as raised:
        read_results(tmp_path)
    assert path.name in str(raised.value)
    assert "python3 -m helpers evaluate" in str(raised.value)


@pytest.mark.parametrize("text", ["", '{"arm": "tea', "[]", "\x00\xff"])
def test_read_results_foreign_text(tmp_path: Path, text: str) -> None:
    path = tmp_path / "mini-teacher-seed7.json"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(ResultFileError, match="mini-teacher-seed7.json"):
        read_results(tmp_path)


def test_read_results_accepts_a_file_without_optional_fields(
    tmp_path: Path,
) -> None:
    path = write_result(TEACHER, tmp_path)
    _edit(path, splits="DROP", mode="DROP", notes="DROP")
    assert read_results(tmp_path) == [replace(TEACHER, notes="")]


def test_read_results_course_order(tmp_path: Path) -> None:
    arms = ["zeta", "feature_mse", "sft_gold", "student_after", "teacher"]
    for arm in [*arms, "logit_cached", "student_before", "logit_online"]:
        write_result(replace(AFTER, arm=arm), tmp_path)
    write_result(replace(AFTER, arm="teacher", profile="full"), tmp_path)
    found = [(result.profile, result.arm) for result in read_results(tmp_path)]
    assert found == [
        ("mini", "teacher"),
        ("mini", "student_before"),
        ("mini", "student_after"),
        ("mini", "sft_gold"),
        ("mini", "logit_online"),
        ("mini", "logit_cached"),
        ("mini", "feature_mse"),
        ("mini", "zeta"),
        ("full", "teacher"),
    ]


def test_results_directory_environment_variable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DISTILL_RESULTS_DIR", str(tmp_path))
    assert results_directory() == tmp_path
    monkeypatch.delenv("DISTILL_RESULTS_DIR")
    assert results_directory().parts[-2:] == ("data", "results")


def test_table_text_exact(tmp_path: Path) -> None:
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
    assert len({line.index("9") for line in lines[:1]}) == 1
    assert lines[2].index("300") == lines[3].index("300")


def test_table_markdown_is_a_table(tmp_path: Path) -> None:
    write_result(AFTER, tmp_path)
    lines = table_markdown(tmp_path).splitlines()
    assert len({line.count("|") for line in lines}) == 1
    assert "| `python3 -m helpers evaluate --arm student_after` |" in lines[2]


def test_tables_show_profile_and_seed_only_when_they_differ() -> None:
    other = replace(AFTER, seed=8, profile="full")
    assert "seed" not in table_markdown(results=[AFTER])
    header = table_markdown(results=[AFTER, other]).splitlines()[0]
    assert header.startswith("| arm | profile | seed | n |")


def test_tables_without_results_name_the_command(tmp_path: Path) -> None:
    assert "python3 -m helpers evaluate" in table_text(tmp_path)
    assert table_markdown(tmp_path) == table_text(tmp_path)


def test_update_readme_changes_only_the_table(tmp_path: Path) -> None:
    write_result(TEACHER, tmp_path / "results")
    readme = tmp_path / "README.md"
    readme.write_text(README, "utf-8")
    assert update_readme(readme, tmp_path / "results") is True
    table = table_markdown(tmp_path / "results")
    assert readme.read_text("utf-8") == README.replace(
        "\nold\n", f"\n\n{table}\n\n"
    )
    assert update_readme(readme, tmp_path / "results") is False


def test_update_readme_fills_the_table_of_notebook_05(tmp_path: Path) -> None:
    write_result(TEACHER, tmp_path / "results")
    arm = replace(AFTER, arm="logit_online", mode=None)
    write_result(arm, tmp_path / "results" / "kd" / "budget_0250")
    readme = tmp_path / "README.md"
    marked = README + "\nx\n<!-- kd:start -->\nold\n<!-- kd:end -->\ny\n"
    readme.write_text(marked, "utf-8")
    assert update_readme(readme, tmp_path / "results") is True
    text = readme.read_text("utf-8")
    assert "| 250 | logits, online | 1 |" in text
    assert text.endswith("\n\n<!-- kd:end -->\ny\n") and "\nx\n<!--" in text


@pytest.mark.parametrize(
    "text", ["# Course\n", README.replace("results:end", "end")]
)
def test_update_readme_without_markers(tmp_path: Path, text: str) -> None:
    readme = tmp_path / "README.md"
    readme.write_text(text, "utf-8")
    with pytest.raises(ResultFileError, match="<!-- results:start -->"):
        update_readme(readme, tmp_path)
    assert readme.read_text("utf-8") == text


def test_main_filters_and_updates_the_readme(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("DISTILL_RESULTS_DIR", str(tmp_path / "results"))
    monkeypatch.setattr(results, "_repository", lambda: tmp_path)
    write_result(TEACHER)
    write_result(replace(AFTER, profile="full"))
    (tmp_path / "README.md").write_text(README, "utf-8")
    assert results.main(["--profile", "mini", "--readme"]) == 0
    printed = capsys.readouterr().out
    assert "teacher" in printed and "student_after" not in printed
    assert "README.md updated." in printed
    assert "student_after" in (tmp_path / "README.md").read_text("utf-8")


def test_main_reports_a_broken_file(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("DISTILL_RESULTS_DIR", str(tmp_path))
    (tmp_path / "mini-teacher-seed7.json").write_text("{", "utf-8")
    assert results.main([]) == 1
    assert "mini-teacher-seed7.json is not JSON" in capsys.readouterr().err
    assert os.listdir(tmp_path) == ["mini-teacher-seed7.json"]
