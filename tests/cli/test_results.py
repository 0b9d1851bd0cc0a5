"""`python3 -m helpers results`: it never takes a table away."""

from dataclasses import replace

import pytest
import tiny

from helpers import CourseError
from helpers.cli import results as command
from helpers.results import table_markdown, write_result

RESULT = tiny.result()
README = (
    "# Course\n<!-- results:start -->\nold\n<!-- results:end -->\n"
    "x\n<!-- kd:start -->\nold\n<!-- kd:end -->\ny\n"
)


@pytest.fixture
def readme(tmp_path, monkeypatch):
    monkeypatch.setenv("DISTILL_RESULTS_DIR", str(tmp_path / "results"))
    path = tmp_path / "README.md"
    monkeypatch.setattr(command, "README", path)
    path.write_text(README, "utf-8")
    return path


def test_readme_gets_both_tables_and_nothing_else_changes(readme, capsys):
    write_result(RESULT)
    write_result(replace(RESULT, arm="sft_gold", profile="full"))
    folder = readme.parent / "results" / "kd" / "budget_0250"
    for arm in ("logits_t2", "text"):
        write_result(replace(RESULT, arm=arm, right="1101"), folder)
    assert command.main(["--profile", "mini", "--readme"]) == 0
    assert "sft_gold" not in capsys.readouterr().out
    text = readme.read_text("utf-8")
    assert f"start -->\n\n{table_markdown()}\n\n<!--" in text
    assert "sft_gold" in text and "| logits, T = 2 | 75.0% (" in text
    assert text.endswith("\n\n<!-- kd:end -->\ny\n") and "\nx\n<!--" in text
    command.main(["--readme"])
    assert readme.read_text("utf-8") == text
    assert (folder.parent / "overview.png").exists()


def test_readme_keeps_its_tables_where_there_are_no_results(readme):
    """A misspelled DISTILL_RESULTS_DIR wiped both, before."""
    with pytest.raises(CourseError, match="DISTILL_RESULTS_DIR"):
        command.main(["--readme"])
    assert readme.read_text("utf-8") == README
    write_result(RESULT)  # but none of notebook 05
    command.main(["--readme"])
    assert README.partition("x\n")[2] in readme.read_text("utf-8")


def test_readme_picture_wants_teacher_and_both_students(readme):
    picture = readme.parent / "results" / "overview.png"
    for arm in ("teacher", "student_before", "student_after"):
        assert not picture.exists()
        correct = {"teacher": 3, "student_after": 2}.get(arm, 1)
        write_result(replace(RESULT, arm=arm, correct=correct))
        command.main(["--readme"])
    assert picture.exists()
