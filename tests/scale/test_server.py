"""helpers.scale.server against real servers on loopback that misbehave.

They are busy, slow, cut short, full of rubbish, or gone half way;
test_transformers_serve.py has a good one.
"""

import contextlib
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
from waiting import wait_until

from helpers import CourseError
from helpers.problems import load_problems
from helpers.profiles import PROFILES
from helpers.scale.server import Server, server_traces, with_thought
from helpers.traces import TraceFileError

ANSWER = "<think>\n6 + 6 = 12.\n</think>\n\nThe answer is 12."
PROBLEMS = load_problems("mini", "train", limit=130)
IDS = [problem["id"] for problem in PROBLEMS[:10]]
SEEDS = [7 * 100_003 + number for number in range(10)]  # one a question


def completion(text: str = ANSWER, finish_reason: str | None = "stop") -> dict:
    message = {"role": "assistant", "content": text}
    choice = {"message": message, "finish_reason": finish_reason}
    return {"choices": [choice], "usage": {"completion_tokens": 9}}


def send(
    handler: Any, content: Any, status: int = 200, length: int | None = None
) -> None:
    """A reply in JSON; `length` says another number of bytes than it has."""
    body = content if length else json.dumps(content).encode()
    handler.send_response(status)
    handler.send_header("Content-Length", str(length or len(body)))
    handler.send_header("retry-after-ms", "20")  # else the tests would wait
    handler.end_headers()
    handler.wfile.write(body)


def well(handler: Any, content: dict, number: int) -> None:
    send(handler, completion(f"{ANSWER} Really."))


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
    poll = {"poll_interval": 0.01}
    threading.Thread(target=server.serve_forever, kwargs=poll).start()
    server.asked = asked
    server.url = f"http://127.0.0.1:{server.server_address[1]}/v1"
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()


def ask(server: Any, path: Path, count: int = 10, **options: Any) -> Any:
    """Traces of the first problems from that server."""
    usual = {"model": "tiny/teacher", "concurrency": 2, "timeout": 5.0}
    asked = Server(server.url, **{**usual, **options})
    mini = PROFILES["mini"]
    return server_traces(PROBLEMS[:count], asked, path, profile=mini)


def ids(path: Path) -> list[str]:
    return [json.loads(line)["id"] for line in path.read_text().splitlines()]


def has_lines(path: Path, count: int) -> bool:
    return path.exists() and path.read_bytes().count(b"\n") >= count


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "traces.jsonl"


def test_server_traces_are_in_order_and_on_disk_as_soon_as_they_can(path):
    """The sixth question is answered when five lines are on disk."""

    def slow_first(handler, content, number):
        if content["seed"] == SEEDS[5]:
            wait_until(lambda: has_lines(path, 5), seconds=10)
        well(handler, content, number)

    with serving(slow_first) as server:
        rows = ask(server, path)
    assert ids(path) == IDS
    first = server.asked[0]
    assert first["model"] == "tiny/teacher" and first["max_tokens"] > 0
    assert sorted(asked["seed"] for asked in server.asked) == SEEDS
    assert rows[0]["sampling"]["teacher"] == "teacher"


@pytest.mark.parametrize("most", [3, 120])
def test_so_many_questions_are_in_flight_and_no_more(path, most):
    """Also more than the 100 connections that an httpx client opens."""
    counts, lock, together = [0], threading.Lock(), threading.Event()

    def count(handler, content, number):
        with lock:
            counts.append(counts[-1] + 1)
        if counts[-1] >= most:
            together.set()
        together.wait(10)
        with lock:
            counts.append(counts[-1] - 1)
        well(handler, content, number)

    with serving(count) as server:
        rows = ask(server, path, 130, concurrency=most, timeout=30)
    assert max(counts) == most and len(rows) == 130


FAULTS = {
    "busy": lambda handler, *_: send(handler, {"error": "busy"}, 503),
    "ends early": lambda handler, *_: send(handler, b'{"choic', length=500),
    "rubbish": lambda handler, _, number: send(
        handler, [["no"], {"choices": []}][number // 2 % 2]
    ),
    "broken off": lambda handler, *_: send(
        handler, completion("<think>\n6 +", finish_reason=None)
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_that_passes_costs_nothing(path, fault):
    def every_other(*asked):
        (FAULTS[fault] if asked[-1] % 2 else well)(*asked)

    with serving(every_other) as server:
        rows = ask(server, path, 4, tries=12)
    assert ids(path) == IDS[:4] and len(server.asked) > 4
    assert all(row["qwen3_answer"].endswith("Really.") for row in rows)


@pytest.mark.parametrize(
    ("text", "tokens"),
    [("x", 1e999), (["a list"], 7), ("\ud800", 7), ("fine", 10**30)],
)
def test_a_reply_that_is_no_text_is_a_sentence(path, text, tokens):
    """Whole by its form, and no text of so many tokens."""

    def reply(handler, *_):
        usage = {"completion_tokens": tokens}
        send(handler, completion(text) | {"usage": usage})

    with serving(reply) as server, pytest.raises(CourseError, match="OpenAI"):
        ask(server, path, 1, tries=1)


@pytest.mark.parametrize(
    ("chunk", "pause", "message"),
    [(b" " * 2**20, 0.0, "more than 16,777,216"), (b" ", 0.1, "not whole")],
)
def test_a_reply_is_not_endless(path, chunk, pause, message):
    """It neither swells nor trickles for ever."""

    def reply(handler, *_):
        with contextlib.suppress(OSError):
            send(handler, chunk, length=10**9)
            while True:
                handler.wfile.write(chunk)
                time.sleep(pause)

    with serving(reply) as server, pytest.raises(CourseError, match=message):
        ask(server, path, 1, tries=1, timeout=1.0)


def echo(handler, *_):
    send(handler, {"error": handler.headers["Authorization"]}, 401)


@pytest.mark.parametrize(
    ("reply", "message", "requests"),
    [
        (lambda h, *_: send(h, "no such model", 404), "404.*no such.*name", 1),
        (lambda h, *_: send(h, "<html>welcome"), "welcome.*OpenAI", 2),
        (lambda *_: time.sleep(1), "0.2 s.*--timeout", 2),
        (echo, r"401.*Bearer \*\*\*.*DISTILL_API_KEY", 1),
        (None, "running.*address", 0),
    ],
    ids=["wrong model", "rubbish", "slow", "wrong key", "nobody listens"],
)
def test_a_fault_that_stays(path, monkeypatch, reply, message, requests):
    """A sentence without secrets, even if the server echoes them."""
    monkeypatch.setenv("DISTILL_API_KEY", "s3cret")
    with serving(reply or well) as server:
        if reply is None:
            server.server_close()
        if reply is not echo:  # a password would take the key's place
            server.url = server.url.replace("//", "//me:passw0rd@")
        with pytest.raises(CourseError, match=message) as caught:
            ask(server, path, 1, timeout=0.2, tries=2)
    assert len(server.asked) == requests
    assert "s3cret" not in str(caught.value) + path.read_text()
    assert "passw0rd" not in str(caught.value)


def test_server_dies_half_way_and_the_next_run_goes_on(path):
    """It asks only what is missing, a line that was broken off included."""

    def dies(handler, content, number):
        if number > 5:
            handler.connection.close()
        else:
            well(handler, content, number)

    with serving(dies) as server, pytest.raises(CourseError, match="running"):
        ask(server, path, tries=2, concurrency=1)
    before = path.read_bytes()
    assert ids(path) == IDS[:5]
    path.write_bytes(before + b'{"id')
    with serving(well) as server:
        ask(server, path)
        ask(server, path)  # a finished file costs nothing
        with pytest.raises(TraceFileError, match="sampling"):
            ask(server, path, model="another/model")
    assert sorted(asked["seed"] for asked in server.asked) == SEEDS[5:]
    assert ids(path) == IDS  # nothing lost, nothing doubled
    assert path.read_bytes().startswith(before)


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGINT")
def test_server_traces_interrupted_leaves_at_once(path):
    """The command itself: no thread may hold it back until its timeout."""
    over = threading.Event()
    code = "import sys, helpers.cli.traces as t; t.main(sys.argv[1:])"

    def hangs(handler, content, number):
        if content["seed"] < SEEDS[3]:
            return well(handler, content, number)
        over.wait(60)

    with serving(hangs) as server:
        options = f"--server {server.url} --model tiny/teacher --output {path}"
        process = subprocess.Popen(
            [sys.executable, "-c", code, *options.split(), "--concurrency=1"],
            stderr=subprocess.PIPE,
        )
        wait_until(lambda: has_lines(path, 3), process, seconds=60)
        started = time.monotonic()
        process.send_signal(signal.SIGINT)  # what Ctrl-C does
        _, errors = process.communicate(timeout=30)
        assert time.monotonic() - started < 10
        over.set()
    assert b"KeyboardInterrupt" in errors
    assert ids(path) == IDS[:3]


@pytest.mark.parametrize(
    ("text", "thought", "cut", "expected"),
    [
        (ANSWER, None, False, ANSWER),
        ("The answer is 12.", "6 + 6 = 12.", False, ANSWER),
        (ANSWER.removeprefix("<think>\n"), None, False, ANSWER),
        ("", "6 + ", True, "<think>\n6 +"),
    ],
)
def test_with_thought_has_one_form(text, thought, cut, expected):
    assert with_thought(text, thought, cut=cut) == expected
