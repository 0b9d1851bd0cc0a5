"""helpers.scale.server against real servers on loopback, good and bad.

One of them answers with the tiny teacher itself; the others misbehave as
servers do: busy, slow, cut short, rubbish, gone half way.
"""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import tiny

from helpers import CourseError, chat
from helpers.generate import generate
from helpers.profiles import Sampling
from helpers.scale.server import AHEAD, Server, server_traces, with_thought
from helpers.traces import TraceFileError, generate_traces, load_traces

ANSWER = "<think>\n6 + 6 = 12.\n</think>\n\nThe answer is 12."


def completion(text: str = ANSWER, **changes: Any) -> dict:
    message = {"role": "assistant", "content": text}
    message |= changes.pop("message", {})
    choice = {"message": message, "finish_reason": "stop"} | changes
    return {"choices": [choice], "usage": {"completion_tokens": 9}}


def send(handler: Any, content: Any, status: int = 200) -> None:
    body = json.dumps(content).encode()
    handler.send_response(status)
    handler.send_header("Content-Length", str(len(body)))
    handler.send_header("retry-after-ms", "20")  # else the tests would wait
    handler.end_headers()
    handler.wfile.write(body)


@contextmanager
def serving(reply: Callable[[Any, dict, int], None]) -> Iterator[Any]:
    """A server; `reply(handler, request, number)` answers each request."""
    asked: list[dict] = []
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            length = int(self.headers["Content-Length"])
            content = json.loads(self.rfile.read(length))
            assert self.path == "/v1/chat/completions"
            with lock:
                asked.append(content)
                number = len(asked)
            reply(self, content, number)

        def log_message(self, *_: Any) -> None:
            pass

    class Many(ThreadingHTTPServer):
        request_queue_size = 256
        daemon_threads = True

    server = Many(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    server.asked = asked
    server.url = f"http://127.0.0.1:{server.server_address[1]}/v1"
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()


def ask(server: Any, path: Any, folder: Any, count: int = 10, **options: Any):
    """Traces of the first problems from that server."""
    options = {"concurrency": 2, "timeout": 5.0} | options
    return server_traces(
        tiny.problems(count),
        Server(server.url, "tiny/teacher", **options),
        path,
        profile=tiny.profile(folder),
        progress=False,
    )


def well(handler: Any, content: dict, number: int) -> None:
    send(handler, completion(f"{ANSWER} Really."))


def ids(path: Any) -> list[str]:
    return [json.loads(line)["id"] for line in path.read_text().splitlines()]


WANTED = [problem["id"] for problem in tiny.problems(10)]
SEEDS = [7 * 100_003 + number for number in range(10)]  # one a question


def test_the_tiny_teacher_behind_a_server_writes_what_it_writes_here(
    tmp_path,
):
    """Greedy, so that the two backends must agree word for word."""
    teacher = tiny.teacher()
    profile = tiny.profile(tmp_path, sampling_temperature=0.0)

    def reply(handler, content, number):
        prompt = chat.render(
            content["messages"], teacher.tokenizer, generate=True
        )
        with lock:
            (found,) = generate(
                teacher.model,
                teacher.tokenizer,
                [prompt],
                sampling=Sampling(max_new_tokens=content["max_tokens"]),
                batch_size=1,
            )
        answer = completion(found.text, finish_reason=found.finish_reason)
        answer["usage"]["completion_tokens"] = found.tokens
        send(handler, answer)

    lock = threading.Lock()
    with serving(reply) as server:
        there = server_traces(
            tiny.problems(6),
            Server(server.url, "tiny/teacher", concurrency=3),
            tmp_path / "there.jsonl",
            profile=profile,
            progress=False,
        )
    here = generate_traces(
        tiny.problems(6),
        teacher.model,
        teacher.tokenizer,
        tmp_path / "here.jsonl",
        profile=profile,
        progress=False,
    )
    for ours, theirs in zip(here, there, strict=True):
        for name in ("id", "qwen3_answer", "finish_reason", "correct"):
            assert ours[name] == theirs[name], name
        assert ours["completion_tokens"] == theirs["completion_tokens"]
    assert there[0]["sampling"]["teacher"] == "teacher"


def test_rows_are_in_order_and_requests_say_everything(tmp_path):
    path = tmp_path / "traces.jsonl"

    def slow_first(handler, content, number):
        time.sleep(0.2 if number % 2 else 0.0)
        well(handler, content, number)

    with serving(slow_first) as server:
        ask(server, path, tmp_path)
    assert ids(path) == WANTED
    first = server.asked[0]
    assert first["model"] == "tiny/teacher" and first["max_tokens"] > 0
    assert sorted(asked["seed"] for asked in server.asked) == SEEDS


@pytest.mark.parametrize("wanted", [3, 120])
def test_so_many_questions_are_in_flight_and_no_more(tmp_path, wanted):
    """Also more than the 100 connections that an httpx client opens."""
    now, most, lock = [0], [0], threading.Lock()
    together = threading.Event()

    def count(handler, content, number):
        with lock:
            now[0] += 1
            most[0] = max(most[0], now[0])
        if most[0] >= wanted:
            together.set()
        together.wait(10)
        with lock:
            now[0] -= 1
        well(handler, content, number)

    with serving(count) as server:
        path = tmp_path / "traces.jsonl"
        ask(server, path, tmp_path, count=130, concurrency=wanted, timeout=30)
    assert most[0] == wanted and len(load_traces(path)) == 130


def busy(status: int):
    def reply(handler, content, number):
        if number % 2:
            send(handler, {"error": "busy"}, status)
        else:
            well(handler, content, number)

    return reply


def cut(handler, content, number):
    """Every other reply ends before its length."""
    if not number % 2:
        return well(handler, content, number)
    handler.send_response(200)
    handler.send_header("Content-Length", "500")
    handler.end_headers()
    handler.wfile.write(b'{"choices": [{"mess')


def rubbish(handler, content, number):
    if number % 2:
        send(handler, [["no"], {"choices": []}][number // 2 % 2])
    else:
        well(handler, content, number)


def broken_off(handler, content, number):
    if number % 2:
        send(handler, completion("<think>\n6 +", finish_reason=None))
    else:
        well(handler, content, number)


@pytest.mark.parametrize(
    "reply", [busy(429), busy(500), busy(503), cut, rubbish, broken_off]
)
def test_a_fault_that_passes_costs_nothing(tmp_path, reply):
    path = tmp_path / "traces.jsonl"
    with serving(reply) as server:
        ask(server, path, tmp_path, count=4, tries=12)
    assert ids(path) == WANTED[:4]
    assert len(server.asked) > 4
    assert all(row["qwen3_answer"].endswith("Really.") for row in
               load_traces(path))  # fmt: skip


def test_a_slow_server_meets_the_timeout(tmp_path):
    def slow(handler, content, number):
        time.sleep(1.5)

    with (
        serving(slow) as server,
        pytest.raises(CourseError, match="0.2 seconds.*--timeout"),
    ):
        ask(
            server,
            tmp_path / "t.jsonl",
            tmp_path,
            count=1,
            timeout=0.2,
            tries=2,
        )


def test_server_dies_half_way_and_the_next_run_goes_on(tmp_path):
    path = tmp_path / "traces.jsonl"

    def dies(handler, content, number):
        if number > 5:
            handler.connection.close()
        else:
            well(handler, content, number)

    with serving(dies) as server, pytest.raises(CourseError, match="running"):
        ask(server, path, tmp_path, tries=2, concurrency=1)
    kept = ids(path)
    assert kept == WANTED[: len(kept)] and len(kept) == 5
    before = path.read_bytes()
    with serving(well) as server:
        ask(server, path, tmp_path, concurrency=1)
    assert ids(path) == WANTED  # nothing lost, nothing doubled
    assert path.read_bytes().startswith(before)


def lines(path: Any) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0


def wait_for_lines(path: Any, count: int, seconds: float = 10) -> None:
    """Return when the file has so many lines; fail when it takes longer."""
    end = time.monotonic() + seconds
    while lines(path) < count:
        assert time.monotonic() < end, f"{lines(path)} lines"
        time.sleep(0.01)


def test_server_traces_keeps_an_answer_as_soon_as_it_can(tmp_path):
    """The sixth question is answered when five lines are on disk."""
    path, before = tmp_path / "traces.jsonl", []

    def look(handler, content, number):
        if content["seed"] == SEEDS[5]:
            wait_for_lines(path, 5)
            before.append(lines(path))
        well(handler, content, number)

    with serving(look) as server:
        ask(server, path, tmp_path)
    assert before == [5] and ids(path) == WANTED


def test_server_traces_a_failure_keeps_all_before_it(tmp_path):
    """Also those that are answered after it has failed."""
    path = tmp_path / "traces.jsonl"
    failed = threading.Event()

    def fails(handler, content, number):
        if content["seed"] == SEEDS[2]:
            send(handler, {"error": "too long"}, 400)
            return failed.set()
        if content["seed"] == SEEDS[1]:
            assert failed.wait(10)
            time.sleep(0.1)
        well(handler, content, number)

    with serving(fails) as server, pytest.raises(CourseError, match="too lo"):
        ask(server, path, tmp_path, concurrency=3)
    assert ids(path) == WANTED[:2]


def test_server_traces_resumed_asks_only_what_is_missing(tmp_path):
    path = tmp_path / "traces.jsonl"
    with serving(well) as server:
        ask(server, path, tmp_path)
    whole = path.read_bytes()
    path.write_bytes(b"".join(whole.splitlines(keepends=True)[:7]) + b'{"id')
    with serving(well) as server:
        ask(server, path, tmp_path)
        assert sorted(asked["seed"] for asked in server.asked) == SEEDS[7:]
        ask(server, path, tmp_path)
        assert len(server.asked) == 3  # a finished file costs nothing
    assert path.read_bytes() == whole


def test_server_traces_runs_only_so_far_ahead_of_a_gap(tmp_path):
    """A kill costs at most AHEAD answers a worker."""
    path = tmp_path / "traces.jsonl"
    answered = threading.Semaphore(0)

    def slow_first(handler, content, number):
        if content["seed"] == SEEDS[0]:
            for _ in range(2 * AHEAD - 1):
                assert answered.acquire(timeout=10)
            assert not answered.acquire(timeout=0.2)
            well(handler, content, number)
        else:
            well(handler, content, number)
            answered.release()

    with serving(slow_first) as server:
        ask(server, path, tmp_path)
    assert ids(path) == WANTED


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGINT")
def test_server_traces_interrupted_leaves_at_once(tmp_path):
    """A process of its own: no thread may hold it back until its timeout."""
    path, over = tmp_path / "traces.jsonl", threading.Event()
    worker = Path(__file__).with_name("server_worker.py")

    def hangs(handler, content, number):
        if content["seed"] < SEEDS[3]:
            return well(handler, content, number)
        over.wait(60)

    with serving(hangs) as server:
        process = subprocess.Popen(
            [sys.executable, str(worker), server.url, str(path)],
            stderr=subprocess.PIPE,
        )
        wait_for_lines(path, 3, seconds=60)
        started = time.monotonic()
        process.send_signal(signal.SIGINT)  # what Ctrl-C does
        _, said = process.communicate(timeout=30)
        assert time.monotonic() - started < 10
        over.set()
    assert b"KeyboardInterrupt" in said
    assert ids(path) == WANTED[:3]
    with serving(well) as server:
        ask(server, path, tmp_path)
        assert len(server.asked) == 7
    assert ids(path) == WANTED


def test_server_traces_a_full_disk_ends_it(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with serving(well) as server, pytest.raises(OSError, match="No space"):
        monkeypatch.setattr(os, "fsync", full)
        ask(server, tmp_path / "t.jsonl", tmp_path, concurrency=1)
    assert len(server.asked) < 10


def test_nobody_listens(tmp_path):
    with serving(well) as server:
        pass
    with pytest.raises(CourseError, match="running.*address"):
        ask(server, tmp_path / "traces.jsonl", tmp_path, tries=2)


def test_a_wrong_model_is_said_at_once(tmp_path):
    def unknown(handler, content, number):
        send(handler, {"error": "no such model"}, 404)

    with (
        serving(unknown) as server,
        pytest.raises(CourseError, match="404.*no such model.*name"),
    ):
        ask(server, tmp_path / "traces.jsonl", tmp_path, count=1)
    assert len(server.asked) == 1  # trying again would not help


def test_rubbish_for_ever_is_an_error_with_a_sample(tmp_path):
    def page(handler, content, number):
        send(handler, "<html>welcome</html>")

    with (
        serving(page) as server,
        pytest.raises(CourseError, match="welcome.*OpenAI"),
    ):
        ask(server, tmp_path / "t.jsonl", tmp_path, count=1, tries=2)


def test_a_file_from_another_backend_is_refused(tmp_path):
    path = tmp_path / "traces.jsonl"
    teacher = tiny.teacher()
    generate_traces(
        tiny.problems(2),
        teacher.model,
        teacher.tokenizer,
        path,
        profile=tiny.profile(tmp_path),
        progress=False,
    )
    before = path.read_bytes()
    with serving(well) as server, pytest.raises(TraceFileError, match="sampl"):
        ask(server, path, tmp_path)
    assert path.read_bytes() == before and server.asked == []


def test_the_key_is_sent_and_never_shown(tmp_path, monkeypatch):
    monkeypatch.setenv("DISTILL_API_KEY", "s3cret")
    seen = []

    def look(handler, content, number):
        seen.append(handler.headers["Authorization"])
        well(handler, content, number)

    path = tmp_path / "traces.jsonl"
    with serving(look) as server:
        ask(server, path, tmp_path, count=1)
        assert "s3cret" not in repr(Server(server.url, "m"))
    assert seen == ["Bearer s3cret"]
    assert "s3cret" not in path.read_text()


def test_an_error_shows_neither_key_nor_password(tmp_path, monkeypatch):
    """Not even when the server echoes what it was sent."""
    monkeypatch.setenv("DISTILL_API_KEY", "s3cret")

    def echo(handler, content, number):
        send(handler, {"error": str(handler.headers)}, 401)

    with serving(echo) as server, pytest.raises(CourseError) as caught:
        server.url = server.url.replace("//", "//me:passw0rd@")
        ask(server, tmp_path / "t.jsonl", tmp_path, count=1)
    message = str(caught.value)
    assert "401" in message
    assert "s3cret" not in message and "passw0rd" not in message


@pytest.mark.parametrize(
    ("text", "thought", "wanted"),
    [
        (ANSWER, None, ANSWER),
        ("The answer is 12.", "6 + 6 = 12.", ANSWER),
        ("6 + 6 = 12.\n</think>\n\nThe answer is 12.", None, ANSWER),
        ("It is 12.", None, "It is 12."),
    ],
)
def test_thoughts_come_in_three_ways(text, thought, wanted):
    assert with_thought(text, thought) == wanted


def test_with_thought_leaves_a_cut_thought_open():
    assert with_thought("", "6 + ", cut=True) == "<think>\n6 +"
    assert with_thought("It", "6", cut=True) == "<think>\n6\n</think>\n\nIt"


def test_works_where_a_loop_is_running_as_in_a_notebook(tmp_path):
    import asyncio

    async def cell():
        with serving(well) as server:
            return ask(server, tmp_path / "traces.jsonl", tmp_path)

    assert len(asyncio.run(cell())) == 10
