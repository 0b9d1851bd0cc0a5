"""helpers.scale.server against a real `transformers serve` on loopback."""

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.request import ProxyHandler, build_opener

import pytest
from waiting import free_port, wait_until

from helpers.models import load_teacher
from helpers.problems import load_problems
from helpers.profiles import PROFILES
from helpers.scale.server import Server, server_traces
from helpers.traces import generate_traces

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        sys.platform == "win32", reason="it ends a whole process group"
    ),
]
MINI = PROFILES["mini"]
DEADLINE = 90.0  # seconds for a server to load and answer
PROBLEMS = load_problems("mini", "test", limit=8)


@pytest.fixture(scope="module")
def served(tmp_path_factory) -> Iterator[Server]:
    """The mini teacher behind `transformers serve`."""
    port = free_port()
    log = tmp_path_factory.mktemp("serve") / "serve.log"
    command = [sys.executable, "-m", "transformers.cli.transformers"]
    options = ["--host", "127.0.0.1", "--port", str(port), "--device", "cpu"]
    with log.open("w") as output:
        process = subprocess.Popen(
            [*command, "serve", MINI.teacher, *options],
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, "HF_HUB_OFFLINE": "1"},
            start_new_session=True,
        )
    try:
        wait_until(lambda: healthy(port), process, DEADLINE)
        address = f"http://127.0.0.1:{port}/v1"
        yield Server(address, MINI.teacher, concurrency=1, tries=2)
    finally:  # the server and all it has started
        print(log.read_text()[-3000:])
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(timeout=30)


def healthy(port: int) -> bool:
    opener = build_opener(ProxyHandler({}))
    with contextlib.suppress(OSError):
        return opener.open(f"http://127.0.0.1:{port}/health").status == 200
    return False


def ask(server: Server, path: Path, **changes: Any) -> list[dict]:
    profile = replace(MINI, **changes)
    return list(server_traces(PROBLEMS, server, path, profile=profile))


@pytest.fixture(scope="module")
def coldest(served, tmp_path_factory) -> list[dict]:
    path = tmp_path_factory.mktemp("coldest") / "traces.jsonl"
    return ask(served, path, sampling_temperature=0.0)


def test_server_traces_are_those_of_the_local_teacher(coldest, tmp_path):
    """Greedy, so that text, tokens and reasons must agree word for word."""
    teacher, cold = load_teacher(MINI), replace(MINI, sampling_temperature=0.0)
    asked = PROBLEMS, teacher.model, teacher.tokenizer, tmp_path / "h.jsonl"
    here = generate_traces(*asked, profile=cold, progress=False)
    for ours, theirs in zip(here, coldest, strict=True):
        for name in ours.keys() - {"sampling"}:
            assert ours[name] == theirs[name], name
    assert sum(row["correct"] for row in here) >= 6


def test_server_traces_sample_by_seed(served, coldest, tmp_path):
    """Its `top_k` is refused, so the sampling is said in other words."""

    def texts(name: str, **changes: Any) -> list[str]:
        changes["sampling_temperature"] = 1.5
        rows = ask(served, tmp_path / f"{name}.jsonl", **changes)
        return [row["qwen3_answer"] for row in rows]

    greedy = [row["qwen3_answer"] for row in coldest]
    first = texts("first")
    assert first == texts("again") and first != greedy  # it does sample
    assert texts("top_k", top_k=1) == greedy  # and top_k is heard
