"""The vLLM backend against a double; this file runs no engine.

The double has the names and the keyword arguments of vLLM 0.33.0's
`EngineArgs`, `LLMEngine`, `SamplingParams` and outputs, read in its sources,
and answers with the mini teacher, so that prompts, order, resume and format
are compared for real.
"""

from __future__ import annotations

import enum
import runpy
import sys
import types
from dataclasses import dataclass, replace
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
import tiny
import torch

from helpers import CourseError
from helpers.generate import Sampling
from helpers.scale.vllm import vllm_traces
from helpers.traces import TraceFileError, generate_traces, load_traces


class RequestOutputKind(enum.Enum):
    CUMULATIVE = 0
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
class EngineArgs:
    model: str
    revision: str | None = None
    dtype: str = "auto"
    seed: int = 0
    tensor_parallel_size: int = 1
    max_model_len: int | None = None


class LLMEngine:
    """Greedy, with the tiny teacher; the last request is finished first."""

    started: list[EngineArgs] = []
    asked: list[tuple[list[int], SamplingParams]] = []
    most: list[int] = []  # requests that wait, at each step
    reason: str | None = None

    def __init__(self) -> None:
        self.model = tiny.teacher().model
        self.waiting: list[tuple[str, list[int], SamplingParams]] = []

    @classmethod
    def from_engine_args(cls, engine_args: EngineArgs) -> LLMEngine:
        cls.started.append(engine_args)
        return cls()

    def add_request(
        self, request_id: str, prompt: Any, params: SamplingParams
    ) -> str:
        ids = prompt["prompt_token_ids"]
        self.asked.append((ids, params))
        self.waiting.append((request_id, ids, params))
        return f"{request_id}-internal"

    def step(self) -> list[SimpleNamespace]:
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
        output = SimpleNamespace(token_ids=new, finish_reason=reason)
        return [
            SimpleNamespace(
                request_id=request_id, outputs=[output], finished=True
            )
        ]


@pytest.fixture
def engine(monkeypatch):
    """`import vllm` gives the double."""
    double = types.ModuleType("vllm")
    double.LLMEngine, double.EngineArgs = LLMEngine, EngineArgs
    double.SamplingParams = SamplingParams
    double.sampling_params = types.ModuleType("vllm.sampling_params")
    double.sampling_params.RequestOutputKind = RequestOutputKind
    monkeypatch.setitem(sys.modules, "vllm", double)
    name = "vllm.sampling_params"
    monkeypatch.setitem(sys.modules, name, double.sampling_params)
    for name in ("started", "asked", "most"):
        monkeypatch.setattr(LLMEngine, name, [])
    monkeypatch.setattr(LLMEngine, "reason", None)
    return LLMEngine


@pytest.fixture
def profile(tmp_path):
    return replace(
        tiny.profile(tmp_path), sampling_temperature=0.0, max_new_tokens=24
    )


PROBLEMS = tiny.problems(5)


def test_vllm_traces_equal_the_local_ones(engine, profile, tmp_path):
    teacher = tiny.teacher()
    local = generate_traces(
        PROBLEMS,
        teacher.model,
        teacher.tokenizer,
        tmp_path / "local.jsonl",
        profile=profile,
        progress=False,
    )
    path = tmp_path / "vllm.jsonl"
    rows = vllm_traces(PROBLEMS, path, profile=profile, gpus=2)
    for ours, theirs in zip(local, rows, strict=True):
        for name in ours.keys() - {"sampling"}:
            assert ours[name] == theirs[name], name
    assert rows[0]["sampling"]["backend"] == "vllm"
    [started] = engine.started
    longest = max(len(ids) for ids, _ in engine.asked)
    assert started.tensor_parallel_size == 2 and started.seed == 7
    assert started.max_model_len == longest + 24


def test_vllm_traces_are_one_stream_without_seeds_of_requests(
    engine, profile, tmp_path
):
    """All that is missing is handed over at once: no chunk waits for its
    longest answer. A seed for each would switch off the fast sampler."""
    rows = vllm_traces(PROBLEMS, tmp_path / "t.jsonl", profile=profile)
    assert engine.most == [5, 4, 3, 2, 1]
    assert {params.seed for _, params in engine.asked} == {None}
    record = rows[0]["sampling"]
    assert record["seeds"] == "engine" and record["seed"] == 7


def test_vllm_traces_continue_and_load_nothing_when_done(
    engine, profile, tmp_path
):
    path = tmp_path / "traces.jsonl"
    write = partial(vllm_traces, PROBLEMS, path, profile=profile)
    write()
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])  # killed in a line
    write()
    assert path.read_bytes() == whole and len(engine.started) == 2
    assert 5 < len(engine.asked) < 10  # only what was missing
    write()
    assert len(engine.started) == 2  # a finished file starts no engine


def test_vllm_shards_are_merged_by_the_last(engine, profile, tmp_path):
    path = tmp_path / "t.jsonl"
    write = partial(vllm_traces, PROBLEMS, path, profile=profile)
    assert write(shard=(1, 2)) is None and not path.exists()
    [part] = tmp_path.glob("*.jsonl")
    assert part.name == "t.part1of2.jsonl" and len(load_traces(part)) == 2
    rows = write(shard=(0, 2))
    assert [row["id"] for row in rows] == [p["id"] for p in PROBLEMS]
    assert [p.name for p in tmp_path.glob("*.jsonl")] == ["t.jsonl"]
    assert len(write(shard=(1, 2))) == 5 and len(engine.started) == 2
    path.write_bytes(path.read_bytes().split(b"\n")[0] + b"\n")
    with pytest.raises(TraceFileError, match="not hold all 5"):
        write(shard=(1, 2))


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # runpy: imported
def test_vllm_missing_is_a_sentence(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "vllm", None)
    path = str(tmp_path / "t.jsonl")
    monkeypatch.setattr(sys, "argv", ["vllm", "--output", path, "--limit=1"])
    with pytest.raises(SystemExit, match="2"):
        runpy.run_module("helpers.scale.vllm", run_name="__main__")
    assert "pip install" in capsys.readouterr().err


def test_vllm_refuses_a_launcher(engine, profile, tmp_path, monkeypatch):
    four = SimpleNamespace(num_processes=4)
    monkeypatch.setattr("helpers.scale.vllm.processes", lambda: four)
    with pytest.raises(CourseError, match="--shard"):
        vllm_traces(PROBLEMS, tmp_path / "t.jsonl", profile=profile)
