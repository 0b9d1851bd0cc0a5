"""The vLLM backend against a double; this file runs no engine.

The double has the names and the keyword arguments of vLLM 0.33.0's `LLM`,
`SamplingParams` and outputs, read in its sources, and answers with the mini
teacher, so that prompts, order, resume and format are compared for real.
"""

from __future__ import annotations

import sys
import types
from dataclasses import dataclass, replace
from typing import Any

import pytest
import tiny
import torch

from helpers.cli import traces as trace_command
from helpers.generate import Sampling
from helpers.scale import vllm as trace_vllm
from helpers.scale.vllm import EngineError, vllm_traces
from helpers.traces import generate_traces, load_traces


@dataclass
class SamplingParams:
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    seed: int | None = None
    stop_token_ids: list[int] | None = None
    max_tokens: int | None = 16
    detokenize: bool = True


@dataclass
class Output:
    token_ids: tuple[int, ...]
    finish_reason: str | None


@dataclass
class RequestOutput:
    outputs: list[Output]


class LLM:
    """Greedy, with the tiny teacher; keeps what it was asked."""

    made: list[dict[str, Any]] = []
    asked: list[tuple[list[int], SamplingParams]] = []
    reason: str | None = None

    def __init__(
        self,
        model: str,
        *,
        revision: str | None = None,
        dtype: str = "auto",
        tensor_parallel_size: int = 1,
        max_model_len: int | None = None,
    ) -> None:
        self.made.append(
            {"model": model, "dtype": dtype, "gpus": tensor_parallel_size}
            | {"length": max_model_len}
        )
        self.model = tiny.teacher().model

    def generate(
        self, prompts: Any, sampling_params: Any, *, use_tqdm: bool = True
    ) -> list[RequestOutput]:
        made = []
        for prompt, params in zip(prompts, sampling_params, strict=True):
            ids = prompt["prompt_token_ids"]
            self.asked.append((ids, params))
            output = self.model.generate(
                input_ids=torch.tensor([ids]),
                attention_mask=torch.ones(1, len(ids), dtype=torch.long),
                max_new_tokens=params.max_tokens,
                eos_token_id=params.stop_token_ids,
                **Sampling(temperature=0).options(),
            )
            new = output[0, len(ids) :].tolist()
            stopped = new[-1] in (params.stop_token_ids or [])
            reason = self.reason or ("stop" if stopped else "length")
            made.append(RequestOutput([Output(tuple(new), reason)]))
        return made


@pytest.fixture
def engine(monkeypatch):
    """`import vllm` gives the double."""
    double = types.ModuleType("vllm")
    double.LLM, double.SamplingParams = LLM, SamplingParams
    monkeypatch.setitem(sys.modules, "vllm", double)
    monkeypatch.setattr(LLM, "made", [])
    monkeypatch.setattr(LLM, "asked", [])
    monkeypatch.setattr(LLM, "reason", None)
    return LLM


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
    assert made["gpus"] == 2 and made["length"] == longest + 24
    seeds = [params.seed for _, params in engine.asked]
    assert len(set(seeds)) == len(seeds)


def test_vllm_traces_continue_and_load_nothing_when_done(
    engine, profile, tmp_path, monkeypatch
):
    monkeypatch.setattr(trace_vllm, "CHUNK", 2)
    path, problems = tmp_path / "traces.jsonl", tiny.problems(5)

    def make() -> None:
        vllm_traces(problems, path, profile=profile, progress=False)

    make()
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])  # killed in a line
    make()
    assert path.read_bytes() == whole and len(engine.made) == 2
    make()
    assert len(engine.made) == 2  # a finished file starts no engine


def test_vllm_aborted_answer_is_not_written(engine, profile, tmp_path):
    engine.reason = "abort"
    path = tmp_path / "traces.jsonl"
    with pytest.raises(EngineError, match="broke an answer off"):
        vllm_traces(tiny.problems(2), path, profile=profile, progress=False)
    assert not path.exists() or path.read_bytes() == b""


def test_vllm_missing_says_how_to_get_it(profile, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "vllm", None)
    with pytest.raises(EngineError, match="pip install.*|an environment of"):
        vllm_traces(
            tiny.problems(1),
            tmp_path / "t.jsonl",
            profile=profile,
            progress=False,
        )


def test_vllm_refuses_a_launcher(engine, profile, tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "4")
    with pytest.raises(EngineError, match="--tensor-parallel 4"):
        vllm_traces(tiny.problems(1), tmp_path / "t.jsonl", profile=profile)


@pytest.mark.parametrize(
    "argv",
    [
        ["--engine", "vllm", "--server", "http://x/v1", "--model", "m"],
        ["--tensor-parallel", "2"],
        ["--server", "http://x/v1"],
    ],
)
def test_traces_refuses_options_that_contradict(argv, capsys):
    with pytest.raises(SystemExit):
        trace_command.main(argv)
    assert "error" in capsys.readouterr().err


def test_traces_refuses_a_server_behind_a_launcher(monkeypatch, capsys):
    monkeypatch.setenv("WORLD_SIZE", "2")
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
    monkeypatch.setattr("helpers.models.load_teacher", lambda _: None)
    monkeypatch.setattr(trace_command, "shared_traces", lambda *_, **__: rows)
    argv = ["--output", str(tmp_path / "traces.jsonl")]
    assert trace_command.main(argv) == 0
    assert "2 new traces" in capsys.readouterr().out
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert trace_command.main(argv) == 0
    told = capsys.readouterr().out
    assert "tokens, all" in told and "new traces" not in told
