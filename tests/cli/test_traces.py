"""`helpers traces`: what its options refuse, and what it prints."""

import json
from types import SimpleNamespace

import pytest
import tiny
from datasets import Dataset

from helpers import CourseError
from helpers.cli import traces as command
from helpers.problems import load_problems
from helpers.traces import load_traces

TWO = SimpleNamespace(num_processes=2, is_main_process=True)
SERVER = "--server http://x/v1"


@pytest.mark.parametrize(
    ("options", "processes"), [(SERVER, 1), (f"{SERVER} --model m", 2)]
)
def test_options_that_contradict(monkeypatch, options, processes):
    alone = SimpleNamespace(num_processes=processes)
    monkeypatch.setattr(command, "processes", lambda: alone)
    monkeypatch.setattr(command, "write", None)
    with pytest.raises(SystemExit) as caught:
        command.main(options.split())
    assert caught.value.code == 2


def test_several_processes_have_no_pace(tmp_path, monkeypatch, capsys):
    """The lines of the merged file do not tell which ones are new."""
    rows = Dataset.from_list(tiny.traces(2))
    monkeypatch.setattr(command, "write", lambda *_: rows)
    argv = ["--output", str(tmp_path / "traces.jsonl")]
    assert command.main(argv) == 0
    assert "2 new traces" in capsys.readouterr().out
    monkeypatch.setattr(command, "processes", lambda: TWO)
    assert command.main(argv) == 0
    output = capsys.readouterr().out
    assert "tokens, all" in output and "new traces" not in output


def test_traces_finds_questions_of_the_test(tmp_path, monkeypatch, capsys):
    question = load_problems("mini", "unseen", limit=1)[0]["question"]
    rows = [row | {"question": question} for row in tiny.traces(1)]
    monkeypatch.setattr(command, "write", lambda *_: Dataset.from_list(rows))
    command.main(["--output", str(tmp_path / "traces.jsonl")])
    assert "questions of the test  1" in capsys.readouterr().out


def test_traces_repair_copies_what_is_good_and_lists_the_rest(tmp_path):
    rows = [json.dumps(row) for row in tiny.traces(4)]
    bad = ['{"id": "torn', rows[0], "[" * 99_999]
    path = tmp_path / "t.jsonl"
    path.write_bytes("\r".join(["\ufeff" + rows[0], *bad, *rows[1:]]).encode())
    before = path.read_bytes()
    assert command.main(["--repair", str(path)]) == 0
    assert path.read_bytes() == before
    assert load_traces(tmp_path / "t.good.jsonl").to_list() == tiny.traces(4)
    left = (tmp_path / "t.left_out.txt").read_text().splitlines()
    lines = [line.split(":")[0] for line in left]
    assert lines == ["line 2", "line 3", "line 4"]
    assert "came before" in left[1]
    with pytest.raises(CourseError, match="t.good.jsonl is there already"):
        command.main(["--repair", str(path)])
