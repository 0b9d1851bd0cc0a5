"""`helpers traces`: what its options refuse, and what it prints."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import tiny
from datasets import Dataset

from helpers.cli import traces as trace_command

TWO = SimpleNamespace(num_processes=2, is_main_process=True)


@pytest.mark.parametrize(
    "argv",
    [
        ["--engine", "vllm", "--server", "http://x/v1", "--model", "m"],
        ["--tensor-parallel", "2"],
        ["--shard", "0/2"],
        ["--engine", "vllm", "--shard", "2/2"],
        ["--limit", "0"],
        ["--limit", "-5"],
        ["--concurrency", "0"],
        ["--timeout", "0"],
        ["--server", "http://x/v1"],
    ],
)
def test_traces_refuses_options_that_contradict(argv, capsys):
    with pytest.raises(SystemExit) as caught:
        trace_command.main(argv)
    assert caught.value.code == 2 and "error" in capsys.readouterr().err


def test_traces_refuses_a_server_behind_a_launcher(monkeypatch, capsys):
    monkeypatch.setattr(trace_command, "processes", lambda: TWO)
    with pytest.raises(SystemExit):
        trace_command.main(["--server", "http://x/v1", "--model", "m"])
    assert "leave the launcher out" in capsys.readouterr().err


def test_traces_leaves_the_pace_out_for_several_processes(
    tmp_path, monkeypatch, capsys
):
    """The lines of the merged file do not tell which ones are new."""
    rows = Dataset.from_list(tiny.traces(2))
    monkeypatch.setattr(trace_command, "write", lambda *_: rows)
    argv = ["--output", str(tmp_path / "traces.jsonl")]
    assert trace_command.main(argv) == 0
    assert "2 new traces" in capsys.readouterr().out
    monkeypatch.setattr(trace_command, "processes", lambda: TWO)
    assert trace_command.main(argv) == 0
    output = capsys.readouterr().out
    assert "tokens, all" in output and "new traces" not in output
