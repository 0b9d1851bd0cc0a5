"""The vLLM backend against a double; this file runs no engine.

The double has the names and the keyword arguments of vLLM 0.33.0's
`EngineArgs`, `LLMEngine`, `SamplingParams` and outputs, read in its sources,
and answers with the mini teacher, so that prompts, order, resume and format
are compared for real.
"""

from __future__ import annotations

import enum
import sys
import types
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any

import pytest
import tiny
import torch

from helpers import CourseError
from helpers.cli import traces as trace_command
from helpers.generate import Sampling
from helpers.scale.vllm import vllm_traces
from helpers.traces import TraceFileError, generate_traces, load_traces


class RequestOutputKind(enum.Enum):
    CUMULATIVE = 0
    DELTA = 1
    FINAL_ONLY = 2


@dataclass
class SamplingParams:
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    seed: int | None = None
    stop_token_ids: list[int] | None = None
    max_tokens: int | None = 16
    detokenize: bool = True
    output_kind: RequestOutputKind = RequestOutputKind.CUMULATIVE


@dataclass
class CompletionOutput:
    token_ids: list[int]
    finish_reason: str | None


@dataclass
class RequestOutput:
    request_id: str
    outputs: list[CompletionOutput]
    finished: bool


@dataclass
class EngineArgs:
    model: str
    revision: str | None = None
    dtype: str = "auto"
    seed: int = 0
    tensor_parallel_size: int = 1
    max_model_len: int | None = None


class LLMEngine:
    """Greedy, with the tiny teacher; the last request is finished first."""

    made: list[EngineArgs] = []
    asked: list[tuple[list[int], SamplingParams]] = []
    most: list[int] = []  # requests that wait, at each step
    reason: str | None = None

    def __init__(self) -> None:
        self.model = tiny.teacher().model
        self.waiting: list[tuple[str, list[int], SamplingParams]] = []

    @classmethod
    def from_engine_args(cls, engine_args: EngineArgs) -> LLMEngine:
        cls.made.append(engine_args)
        return cls()

    def add_request(
        self, request_id: str, prompt: Any, params: SamplingParams
    ) -> str:
        ids = prompt["prompt_token_ids"]
        self.asked.append((ids, params))
        self.waiting.append((request_id, ids, params))
        return f"{request_id}-internal"

    def step(self) -> list[RequestOutput]:
        self.most.append(len(self.waiting))
        request_id, ids, params = self.waiting.pop()
        assert params.output_kind is RequestOutputKind.FINAL_ONLY
        output = self.model.generate(
            input_ids=torch.tensor([ids]),
            attention_mask=torch.ones(1, len(ids), dtype=torch.long),
            eos_token_id=params.stop_token_ids,
            **Sampling(max_new_tokens=params.max_tokens).options(),
        )
        new = output[0, len(ids) :].tolist()
        stopped = new[-1] in (params.stop_token_ids or [])
        reason = self.reason or ("stop" if stopped else "length")
        return [
            RequestOutput(request_id, [CompletionOutput(new, reason)], True)
        ]


@pytest.fixture
def engine(monkeypatch):
    """`import vllm` gives the double."""
    double = types.ModuleType("vllm")
    double.LLMEngine, double.EngineArgs = LLMEngine, EngineArgs
    double.SamplingParams = SamplingParams
    params = types.ModuleType("vllm.sampling_params")
    params.RequestOutputKind = RequestOutputKind
    monkeypatch.setitem(sys.modules, "vllm", double)
    monkeypatch.setitem(sys.modules, "vllm.sampling_params", params)
    for name in ("made", "asked", "most"):
        monkeypatch.setattr(LLMEngine, name, [])
    monkeypatch.setattr(LLMEngine, "reason", None)
    return LLMEngine


@pytest.fixture
def profile(tmp_path):
    return replace(
        tiny.profile(tmp_path), sampling_temperature=0.0, max_new_tokens=24
    )


def test_vllm_traces_equal_the_local_ones(engine, profile, tmp_path):
    problems, teacher = tiny.problems(5), tiny.teacher()
    ours = generate_traces(
        problems,
        teacher.model,
        teacher.tokenizer,
        tmp_path / "local.jsonl",
        profile=profile,
        progress=False,
    )
    theirs = vllm_traces(
        problems,
        tmp_path / "vllm.jsonl",
        profile=profile,
        gpus=2,
        progress=False,
    )
    different = {"sampling"}
    for own, other in zip(ours, theirs, strict=True):
        assert {k: v for k, v in own.items() if k not in different} == {
            k: v for k, v in other.items() if k not in different
        }
    assert theirs[0]["sampling"]["backend"] == "vllm"
    (made,) = engine.made
    longest = max(len(ids) for ids, _ in engine.asked)
    assert made.tensor_parallel_size == 2 and made.seed == 7
    assert made.max_model_len == longest + 24


def test_vllm_traces_are_one_stream_without_seeds_of_requests(
    engine, profile, tmp_path, monkeypatch
):
    """All that is missing is handed over at once: no chunk waits for its
    longest answer. A seed for each would switch off the fast sampler."""
    vllm_traces(
        tiny.problems(5), tmp_path / "t.jsonl", profile=profile, progress=False
    )
    assert engine.most == [5, 4, 3, 2, 1]
    assert {params.seed for _, params in engine.asked} == {None}
    record = load_traces(tmp_path / "t.jsonl")[0]["sampling"]
    assert record["seeds"] == "engine" and record["seed"] == 7


def test_vllm_traces_continue_and_load_nothing_when_done(
    engine, profile, tmp_path
):
    path, problems = tmp_path / "traces.jsonl", tiny.problems(5)

    def make() -> None:
        vllm_traces(problems, path, profile=profile, progress=False)

    make()
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])  # killed in a line
    make()
    assert path.read_bytes() == whole and len(engine.made) == 2
    assert 5 < len(engine.asked) < 10  # only what was missing
    make()
    assert len(engine.made) == 2  # a finished file starts no engine


def test_vllm_shards_are_merged_by_the_last(engine, profile, tmp_path):
    path, problems = tmp_path / "t.jsonl", tiny.problems(5)

    def make(which: int, count: int = 2) -> Any:
        return vllm_traces(
            problems,
            path,
            profile=profile,
            shard=(which, count),
            progress=False,
        )

    assert make(1) is None and not path.exists()
    (part,) = tmp_path.glob("*.jsonl")
    assert part.name == "t.part1of2.jsonl" and len(load_traces(part)) == 2
    rows = make(0)
    assert [row["id"] for row in rows] == [p["id"] for p in problems]
    assert [p.name for p in tmp_path.glob("*.jsonl")] == ["t.jsonl"]
    assert len(make(1)) == 5 and len(engine.made) == 2  # nothing anew
    path.write_bytes(path.read_bytes().split(b"\n")[0] + b"\n")
    with pytest.raises(TraceFileError, match="1 of 5"):
        make(1)


def test_vllm_aborted_answer_is_not_written(engine, profile, tmp_path):
    engine.reason = "abort"
    path = tmp_path / "traces.jsonl"
    with pytest.raises(CourseError, match="broke an answer off"):
        vllm_traces(tiny.problems(2), path, profile=profile, progress=False)
    assert not path.exists() or path.read_bytes() == b""


def test_vllm_missing_says_how_to_get_it(profile, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "vllm", None)
    with pytest.raises(CourseError, match="pip install"):
        vllm_traces(
            tiny.problems(1),
            tmp_path / "t.jsonl",
            profile=profile,
            progress=False,
        )


def launched(count: int) -> SimpleNamespace:
    return SimpleNamespace(num_processes=count, is_main_process=True)


def test_vllm_refuses_a_launcher(engine, profile, tmp_path, monkeypatch):
    monkeypatch.setattr("helpers.scale.vllm.processes", lambda: launched(4))
    with pytest.raises(CourseError, match="--shard"):
        vllm_traces(tiny.problems(1), tmp_path / "t.jsonl", profile=profile)


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
    monkeypatch.setattr(trace_command, "processes", lambda: launched(2))
    with pytest.raises(SystemExit):
        trace_command.main(["--server", "http://x/v1", "--model", "m"])
    assert "leave the launcher out" in capsys.readouterr().err


def test_traces_prints_the_pace_of_what_it_added(engine, tmp_path, capsys):
    path = tmp_path / "traces.jsonl"
    argv = ["--engine", "vllm", "--limit", "2", "--output", str(path)]
    assert trace_command.main(argv) == 0
    assert "2 new traces: " in capsys.readouterr().out
    assert trace_command.main(argv) == 0
    assert "nothing was missing" in capsys.readouterr().out
    assert len(load_traces(path)) == 2


def test_traces_leaves_the_pace_out_for_several_processes(
    tmp_path, monkeypatch, capsys
):
    """The lines of the merged file do not tell which ones are new."""
    from datasets import Dataset

    rows = Dataset.from_list(tiny.traces(2))
    monkeypatch.setattr(trace_command, "write", lambda *_: rows)
    argv = ["--output", str(tmp_path / "traces.jsonl")]
    assert trace_command.main(argv) == 0
    assert "2 new traces" in capsys.readouterr().out
    monkeypatch.setattr(trace_command, "processes", lambda: launched(2))
    assert trace_command.main(argv) == 0
    told = capsys.readouterr().out
    assert "tokens, all" in told and "new traces" not in told
