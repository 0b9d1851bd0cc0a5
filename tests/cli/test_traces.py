"""`helpers traces`: what its options refuse, and what it prints."""

from types import SimpleNamespace

import pytest
import tiny
from datasets import Dataset

from helpers.cli import traces as command
from helpers.problems import load_problems

TWO = SimpleNamespace(num_processes=2, is_main_process=True)
SERVER = "--server http://x/v1"


@pytest.mark.parametrize(
    ("options", "processes"),
    [
        (f"--engine vllm {SERVER} --model m", 1),
        (SERVER, 1),
        ("--tensor-parallel 2", 1),
        ("--shard 0/2", 1),
        (f"{SERVER} --model m", 2),
    ],
)
def test_traces_refuses_options_that_contradict(
    monkeypatch, options, processes
):
    alone = SimpleNamespace(num_processes=processes)
    monkeypatch.setattr(command, "processes", lambda: alone)
    monkeypatch.setattr(command, "write", None)
    with pytest.raises(SystemExit) as caught:
        command.main(options.split())
    assert caught.value.code == 2


def test_traces_leaves_the_pace_out_for_several_processes(
    tmp_path, monkeypatch, capsys
):
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
