"""`helpers evaluate`, `traces` and `results`: refused first, or kept whole."""

import json
from dataclasses import replace
from types import SimpleNamespace

import pytest
import tiny
from datasets import Dataset

from helpers import CourseError, profiles
from helpers.cli import results, students, traces
from helpers.problems import load_problems
from helpers.results import read_results, table_markdown, write_result
from helpers.traces import load_traces

TWO = SimpleNamespace(num_processes=2, is_main_process=True)
SERVER = "--server http://x/v1"
RESULT = tiny.result()
README = (
    "# Course\n<!-- results:start -->\nold\n<!-- results:end -->\n"
    "x\n<!-- kd:start -->\nold\n<!-- kd:end -->\ny\n"
)


@pytest.fixture
def place(tmp_path, monkeypatch):
    """The tiny models as profile `mini`; six problems; no adapters."""
    monkeypatch.setattr(profiles, "RUNS", tmp_path / "runs")
    monkeypatch.setenv("DISTILL_RESULTS_DIR", str(tmp_path / "results"))
    small = replace(tiny.profile(tmp_path), name="mini")
    monkeypatch.setattr(students, "get_profile", lambda _: small)
    asked = tiny.problems(6)
    monkeypatch.setattr(students, "load_problems", lambda *_, limit: asked)
    student = tiny.plain_student
    arms = {"teacher": tiny.teacher, "teacher_sampled": tiny.teacher}
    monkeypatch.setattr(
        students, "load_arm", lambda arm, *_: arms.get(arm, student)()
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
    monkeypatch.setattr(students, "load_arm", None)
    with pytest.raises(SystemExit) as stopped:
        students.score(options.split())
    assert stopped.value.code == 2 and read_results() == []


def test_each_way_of_asking_has_a_file_of_its_own(place, capsys):
    """`--mode think` overwrote the test's result, before."""
    adapter = f"--adapter={place}/final/"  # its slash and "=" made it fail
    arms = ["student_before", f"mine {adapter}", "student_before --mode=think"]
    for options in (*arms, "teacher", "teacher_sampled --seed=7"):
        students.score(f"--write --arm={options}".split())
    kept = read_results()
    modes = {"teacher": None, "teacher_sampled": "sampled"}
    modes |= {"student_before": "at once", "student_before_think": "think"}
    assert {x.arm: x.mode for x in kept} == modes | {"mine": None}
    assert "--adapter ADAPTER" in kept[4].command
    assert str(place) not in kept[4].command
    folder = place / "runs" / "mini" / "evaluation"
    path = folder / "teacher_sampled-test-teacher-seed7.jsonl"
    first = path.read_text("utf-8").strip().split("\n")[0]
    assert json.loads(first)["sampling"]["temperature"] == 0.6
    before = path.read_bytes()
    capsys.readouterr()
    students.score(["--arm", "teacher_sampled"])  # asks nothing again
    assert "teacher_sampled on test: " in capsys.readouterr().out
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("options", "processes"), [(SERVER, 1), (f"{SERVER} --model m", 2)]
)
def test_options_that_contradict(monkeypatch, options, processes):
    alone = SimpleNamespace(num_processes=processes)
    monkeypatch.setattr(traces, "processes", lambda: alone)
    monkeypatch.setattr(traces, "write", None)
    with pytest.raises(SystemExit) as caught:
        traces.main(options.split())
    assert caught.value.code == 2


def test_several_processes_have_no_pace(tmp_path, monkeypatch, capsys):
    """The lines of the merged file do not tell which ones are new."""
    rows = Dataset.from_list(tiny.traces(2))
    monkeypatch.setattr(traces, "write", lambda *_: rows)
    argv = ["--output", str(tmp_path / "traces.jsonl")]
    assert traces.main(argv) == 0
    assert "2 new traces" in capsys.readouterr().out
    monkeypatch.setattr(traces, "processes", lambda: TWO)
    assert traces.main(argv) == 0
    output = capsys.readouterr().out
    assert "tokens, all" in output and "new traces" not in output


def test_traces_finds_questions_of_the_test(tmp_path, monkeypatch, capsys):
    question = load_problems("mini", "unseen", limit=1)[0]["question"]
    rows = [row | {"question": question} for row in tiny.traces(1)]
    monkeypatch.setattr(traces, "write", lambda *_: Dataset.from_list(rows))
    traces.main(["--output", str(tmp_path / "traces.jsonl")])
    assert "questions of the test  1" in capsys.readouterr().out


def test_traces_repair_copies_what_is_good_and_lists_the_rest(tmp_path):
    rows = [json.dumps(row) for row in tiny.traces(4)]
    bad = ['{"id": "torn', rows[0], "[" * 99_999]
    path = tmp_path / "t.jsonl"
    path.write_bytes("\r".join(["\ufeff" + rows[0], *bad, *rows[1:]]).encode())
    before = path.read_bytes()
    assert traces.main(["--repair", str(path)]) == 0
    assert path.read_bytes() == before
    assert load_traces(tmp_path / "t.good.jsonl").to_list() == tiny.traces(4)
    left = (tmp_path / "t.left_out.txt").read_text().splitlines()
    lines = [line.split(":")[0] for line in left]
    assert lines == ["line 2", "line 3", "line 4"]
    assert "came before" in left[1]
    with pytest.raises(CourseError, match="t.good.jsonl is there already"):
        traces.main(["--repair", str(path)])


@pytest.fixture
def readme(tmp_path, monkeypatch):
    monkeypatch.setenv("DISTILL_RESULTS_DIR", str(tmp_path / "results"))
    path = tmp_path / "README.md"
    monkeypatch.setattr(results, "README", path)
    path.write_text(README, "utf-8")
    return path


def test_readme_gets_both_tables_and_nothing_else_changes(readme, capsys):
    write_result(RESULT)
    write_result(replace(RESULT, arm="sft_gold", profile="full"))
    folder = readme.parent / "results" / "kd" / "budget_0250"
    for arm in ("logits_t2", "text"):
        write_result(replace(RESULT, arm=arm, right="1101"), folder)
    assert results.main(["--profile", "mini", "--readme"]) == 0
    assert "sft_gold" not in capsys.readouterr().out
    text = readme.read_text("utf-8")
    assert f"start -->\n\n{table_markdown()}\n\n<!--" in text
    assert "sft_gold" in text and "| logits, T = 2 | 75.0% (" in text
    assert text.endswith("\n\n<!-- kd:end -->\ny\n") and "\nx\n<!--" in text
    results.main(["--readme"])
    assert readme.read_text("utf-8") == text
    assert (folder.parent / "overview.png").exists()


def test_readme_keeps_its_tables_where_there_are_no_results(readme):
    """A misspelled DISTILL_RESULTS_DIR wiped both, before."""
    with pytest.raises(CourseError, match="DISTILL_RESULTS_DIR"):
        results.main(["--readme"])
    assert readme.read_text("utf-8") == README
    write_result(RESULT)  # but none of notebook 05
    results.main(["--readme"])
    assert README.partition("x\n")[2] in readme.read_text("utf-8")


def test_readme_picture_wants_teacher_and_both_students(readme):
    picture = readme.parent / "results" / "overview.png"
    for arm in ("teacher", "student_before", "student_after"):
        assert not picture.exists()
        correct = {"teacher": 3, "student_after": 2}.get(arm, 1)
        write_result(replace(RESULT, arm=arm, correct=correct))
        results.main(["--readme"])
    assert picture.exists()
