"""Two processes (gloo, on the CPU) do what one does with twice the batch."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import tiny

from helpers.profiles import DATA
from helpers.scale.shards import merge_parts, part_path
from helpers.sft import RunError, open_run
from helpers.traces import TraceFileError, generate_traces, load_traces
from helpers.trainer import sft_config

needs_gloo = pytest.mark.skipif(
    sys.platform == "win32", reason="torchrun was never tried on Windows"
)
WORKER = str(Path(__file__).with_name("parallel_worker.py"))
LAUNCH = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node"]


def run(job: str, folder: Path, *, processes: int, batch: int) -> list:
    """A job in one or more processes; what the first one reports."""
    folder.mkdir(exist_ok=True)
    launch = [*LAUNCH, str(processes)]
    done = subprocess.run(
        [
            sys.executable,
            *(launch if processes > 1 else []),
            *(WORKER, job, str(folder), str(batch)),
        ],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads((folder / f"{job}.json").read_text())


@needs_gloo
@pytest.mark.slow
@pytest.mark.parametrize("job", ["sft", "logit", "features"])
def test_two_processes_train_as_one_with_the_same_global_batch(job, tmp_path):
    one = run(job, tmp_path / "one", processes=1, batch=4)
    two = run(job, tmp_path / "two", processes=2, batch=2)
    assert one == pytest.approx(two, abs=1e-3)
    assert one[-1] < one[0]
    left = sorted(path.name for path in (tmp_path / "two" / job).iterdir())
    assert left == ["epoch_1", "epoch_2", "final", "log.json", "run.json"]


def test_open_run_refuses_a_sharded_model(tmp_path, monkeypatch):
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    with pytest.raises(RunError, match="FSDP.*ddp.yaml"):
        open_run(tmp_path / "run", {}, overwrite=True)
    assert not (tmp_path / "run").exists()


def test_accelerate_reads_the_shipped_configuration():
    from accelerate.commands import launch

    path = str(DATA / "accelerate" / "ddp.yaml")
    line = ["--config_file", path, "-m", "helpers", "sft"]
    args = launch.launch_command_parser().parse_args(line)
    config = launch._validate_launch_command(args)[0]
    assert config.multi_gpu and config.num_processes == 2
    assert config.mixed_precision == "bf16" and config.module
    assert config.training_script_args == ["sft"]


def test_the_schedule_counts_all_processes(tmp_path, monkeypatch):
    """Warm-up and logging follow the global batch, not one process's."""

    def schedule(batch: int) -> tuple:
        profile = tiny.profile(tmp_path, batch_size=batch, epochs=10)
        config = sft_config(profile, tmp_path, rows=128, seed=7)
        return config.warmup_steps, config.logging_steps

    alone = schedule(4)
    two = SimpleNamespace(num_processes=2)
    monkeypatch.setattr("helpers.trainer.processes", lambda: two)
    assert schedule(2) == alone == (16, 8)


@needs_gloo
@pytest.mark.slow
def test_two_processes_share_the_problems_and_merge(tmp_path):
    wanted = [problem["id"] for problem in tiny.problems(9)]
    assert run("traces", tmp_path / "two", processes=2, batch=2) == wanted
    left = [p.name for p in (tmp_path / "two").glob("*.jsonl")]
    assert left == ["traces.jsonl"]
    again = run("traces", tmp_path / "two", processes=2, batch=2)
    assert again == wanted  # nothing is asked twice


def shares(folder: Path) -> tuple[Path, list[dict]]:
    """The two parts of a trace file, as two processes leave them."""
    path, teacher = folder / "traces.jsonl", tiny.teacher()
    for rank in range(2):
        generate_traces(
            tiny.problems(5)[rank::2],
            teacher.model,
            teacher.tokenizer,
            part_path(path, rank, 2),
            profile=tiny.profile(folder),
            progress=False,
        )
    return path, tiny.problems(5)


def test_merge_parts_restores_the_order(tmp_path):
    path, problems = shares(tmp_path)
    merge_parts(path, problems, 2)
    assert [row["id"] for row in load_traces(path)] == [
        problem["id"] for problem in problems
    ]
    assert not part_path(path, 0, 2).exists()


def test_merge_parts_refuses_a_gap_and_keeps_the_parts(tmp_path):
    path, problems = shares(tmp_path)
    part = part_path(path, 1, 2)
    lines = part.read_text("utf-8").splitlines(keepends=True)
    part.write_text("".join(lines[:-1]), encoding="utf-8")
    with pytest.raises(TraceFileError, match="1 of 5 answers are missing"):
        merge_parts(path, problems, 2)
    assert part.exists() and not path.exists()
    part.unlink()
    with pytest.raises(TraceFileError, match="part1of2"):
        merge_parts(path, problems, 2)
