"""Two processes (gloo, on the CPU) do what one does with twice the batch."""

import json
import sys
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace

import forked
import pytest
import tiny

from helpers.problems import load_problems
from helpers.profiles import DATA
from helpers.scale.shards import answered, merge_parts, part_path
from helpers.sft import RunError, open_run
from helpers.traces import TraceFileError, generate_traces
from helpers.trainer import sft_config

needs_gloo = pytest.mark.skipif(
    sys.platform == "win32", reason="torchrun was never tried on Windows"
)
WORKER = str(Path(__file__).with_name("parallel_worker.py"))


def run(folder: Path, *, processes: int, batch: int) -> dict:
    """All jobs in one or more processes; what the first one reports."""
    folder.mkdir()
    forked.launch(processes, WORKER, folder, batch)
    return json.loads((folder / "report.json").read_text())


@pytest.fixture(scope="module")
def reports(tmp_path_factory):
    """The folder of two processes, their report, and that of one process."""
    folder = tmp_path_factory.mktemp("parallel")
    two = run(folder / "two", processes=2, batch=2)
    return folder / "two", two, run(folder / "one", processes=1, batch=4)


@needs_gloo
@pytest.mark.slow
@pytest.mark.parametrize("job", ["sft", "logit", "features"])
def test_two_processes_train_as_one_with_the_same_global_batch(job, reports):
    folder, two, one = reports
    assert one[job] == pytest.approx(two[job], abs=1e-3)
    assert one[job][-1] < one[job][0]
    left = sorted(path.name for path in (folder / job).iterdir())
    assert left == ["epoch_1", "epoch_2", "final", "log.json", "run.json"]


@needs_gloo
@pytest.mark.slow
def test_two_processes_share_the_problems_and_merge(reports):
    folder, two, one = reports
    problems = [problem["id"] for problem in tiny.problems(9)]
    assert two["traces"] == two["again"] == one["traces"] == problems
    assert [p.name for p in folder.glob("*.jsonl")] == ["traces.jsonl"]


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


def test_merge_parts_refuses_a_gap_and_keeps_the_parts(tmp_path):
    path, problems = tmp_path / "traces.jsonl", tiny.problems(5)
    teacher, options = tiny.teacher(), {"profile": tiny.profile(tmp_path)}
    for rank in range(2):  # as two processes leave them
        part, asked = part_path(path, rank, 2), problems[rank::2]
        generate_traces(
            asked, teacher.model, teacher.tokenizer, part, **options
        )
    lines = part.read_text("utf-8").splitlines(keepends=True)
    part.write_text("".join(lines[:-1]), encoding="utf-8")
    with pytest.raises(TraceFileError, match="1 of 5 answers are missing"):
        merge_parts(path, problems, 2)
    assert part.exists() and not path.exists()
    part.unlink()
    with pytest.raises(TraceFileError, match="part1of2"):
        merge_parts(path, problems, 2)


def test_answered_whoever_wrote_the_file(tmp_path):
    mini = tiny.PROFILES["mini"]
    asked = load_problems("mini", "train", limit=mini.traces)
    assert answered(mini.traces_path, asked, mini)  # the shipped file
    assert not answered(mini.traces_path, asked[:-1], mini)
    assert not answered(mini.traces_path, asked[::-1], mini)
    hot = replace(mini, sampling_temperature=2.0)
    assert not answered(mini.traces_path, asked, hot)
    path, record = tmp_path / "t.jsonl", asdict(mini.sampling(seed=8))
    assert not answered(path, tiny.problems(1), mini)
    trace = tiny.traces(1)[0] | {"sampling": {"backend": "vllm", **record}}
    path.write_text(json.dumps(trace) + "\n")
    assert answered(path, tiny.problems(1), mini)
