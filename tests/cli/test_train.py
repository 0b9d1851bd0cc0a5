"""What `sft` and `distill` refuse before any work is done."""

from __future__ import annotations

from importlib import import_module

import pytest


@pytest.mark.parametrize(
    "line",
    [
        "train --rank 0",
        "train --epochs 0",
        "train --limit 0",
        "train --limit -5",
        "distill --budget 0",
        "distill --epochs 0",
        "distill --top-k 0",
        "distill --kind banana",
    ],
)
def test_command_refuses_what_it_cannot_count(line, capsys):
    command, *argv = line.split()
    module = import_module(f"helpers.cli.{command}")
    with pytest.raises(SystemExit) as end:
        module.main(argv)
    assert end.value.code == 2
    assert argv[0] in capsys.readouterr().err
