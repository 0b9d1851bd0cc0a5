"""Traces from a server: vLLM, llama.cpp, Ollama, `transformers serve`.

Anything that speaks OpenAI's chat completions will do; it applies the chat
template and counts the tokens. Each question has a seed of its own, so a
second run asks only what is missing.

`transformers serve` has one random generator for all answers: with
--concurrency 1 the same seed gives the same file, with more they are as good
but not repeatable. --model is the very name or folder it was started with.
"""

from __future__ import annotations

import json
import os
import re
import time
from collections import deque
from collections.abc import Generator
from dataclasses import dataclass
from itertools import islice
from multiprocessing.pool import AsyncResult, ThreadPool
from pathlib import Path
from typing import Any

import httpx2  # the openai SDK's own httpx
import openai
from tqdm.auto import tqdm

from helpers import CourseError, chat
from helpers.generate import Completion
from helpers.profiles import Profile
from helpers.traces import sampling_record, teacher_messages, write_traces

LARGEST_REPLY = 2**24  # bytes
AHEAD = 4  # questions a worker past the first gap: what a kill may cost
CURES = {
    openai.APIStatusError: "Check the model's name and DISTILL_API_KEY, or "
    "lower --concurrency if it is busy.",
    httpx2.ReadTimeout: "Raise --timeout, or lower --concurrency.",
    httpx2.DecodingError: "Is this an OpenAI-compatible server?",
    Exception: "Is it running, and is the address right, with /v1 at its end?",
}


@dataclass(frozen=True)
class Server:
    """Where and how to ask; the key, in DISTILL_API_KEY, is written nowhere.

    url: up to and including `/v1`. model: the name that the server knows.
    concurrency: questions in flight. timeout, tries: seconds and attempts
    for one answer.
    """

    url: str
    model: str
    concurrency: int = 16
    timeout: float = 600.0
    tries: int = 6

    def client(self) -> openai.OpenAI:
        """The SDK; tries silence, 408, 409, 429, 5xx and rubbish again."""
        return openai.OpenAI(
            base_url=self.url,
            api_key=os.environ.get("DISTILL_API_KEY") or "no-key",
            max_retries=self.tries - 1,
            timeout=httpx2.Timeout(self.timeout, connect=10.0),
            http_client=openai.DefaultHttpxClient(
                limits=httpx2.Limits(max_connections=self.concurrency),
                follow_redirects=False,
                trust_env=False,  # no proxy between us and a local server
                event_hooks={"response": [check_reply]},
            ),
        )


def server_traces(
    problems: list[dict],
    server: Server,
    path: Path,
    *,
    profile: Profile,
    seed: int = 7,
) -> Any:
    """`generate_traces` with the teacher behind a server.

    Each answer is on disk as soon as all before it are. Raises CourseError
    when one stays out, with the file ending before it; the next run asks
    from there on.
    """
    sampling = profile.sampling(seed)
    bodies = [
        {
            "model": server.model,
            "messages": teacher_messages(problem["question"], profile),
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "top_k": sampling.top_k,  # also 0: else the model's own default
            "max_tokens": sampling.max_new_tokens,
            "seed": seed * 100_003 + number,
        }
        for number, problem in enumerate(problems)
    ]
    record = sampling_record(
        server.model, {"backend": "server"}, profile, seed
    )
    return write_traces(
        problems,
        path,
        lambda done: ask_all(server, bodies[done:]),
        record=record,
    )


def ask_all(server: Server, bodies: list[dict]) -> Generator[Completion]:
    """An answer to each request, in their order, as they come.

    Raises the CourseError of the first that stays without an answer, when
    all before it are given. That, and Ctrl-C, ends the rest: the pool's
    threads are daemons, so no exit waits for them.
    """
    room, waiting = AHEAD * server.concurrency, iter(bodies)
    asked: deque[AsyncResult] = deque()
    with server.client() as client, ThreadPool(server.concurrency) as pool:
        for _ in tqdm(bodies, desc="teacher"):
            for body in islice(waiting, room - len(asked)):
                asked.append(pool.apply_async(ask, (server, client, body)))
            answer = asked.popleft()
            while not answer.ready():
                answer.wait(0.5)  # Windows takes no Ctrl-C in an endless one
            yield answer.get()


def ask(server: Server, client: openai.OpenAI, body: dict) -> Completion:
    """One whole answer; CourseError with the cure if there is none."""
    try:
        return read_reply(post(client, body))
    except openai.APIError as error:
        cause = error.__cause__ or error
        reason = f"{cause!r} in {server.tries} tries of {server.timeout:g} s"
        if isinstance(error, openai.APIStatusError):
            text = error.response.text.replace(client.api_key, "***")
            reason = f"status {error.status_code}, {text[:200]!r}"
    cure = next(CURES[kind] for kind in CURES if isinstance(cause, kind))
    place = re.sub(r"//.*@", "//", server.url)  # without a password
    reason = reason.replace(client.api_key, "***")
    raise CourseError(f"{place}: {reason}. {cure}")


def post(client: openai.OpenAI, body: dict) -> httpx2.Response:
    """One request, in other words for `transformers serve`.

    That refuses `top_k`. It takes a generation configuration as text, and
    whether to sample from there alone, whatever the temperature.
    """
    options = {"cast_to": httpx2.Response}
    try:
        return client.post("/chat/completions", body=body, **options)
    except openai.UnprocessableEntityError as error:
        if "top_k" not in error.response.text:
            raise
    body = dict(body)
    sampling = {
        "do_sample": body["temperature"] > 0,
        "top_k": body.pop("top_k"),
    }
    body["generation_config"] = json.dumps(sampling)
    return client.post("/chat/completions", body=body, **options)


def check_reply(reply: httpx2.Response) -> None:
    """Raise what the SDK tries again, for a reply that is no whole answer."""
    if reply.is_success:
        read_within(reply)
        try:
            read_reply(reply)
        except (ValueError, LookupError, TypeError, AttributeError,
                OverflowError, RecursionError) as error:  # fmt: skip
            reason = f"{error!r} in {reply.text[:80]!r}"
            raise httpx2.DecodingError(reason) from error


def read_within(reply: httpx2.Response) -> None:
    """Read a reply that may neither trickle nor swell for ever."""
    seconds = reply.request.extensions["timeout"]["read"]
    end, parts, size = time.monotonic() + seconds, [], 0
    for part in reply.iter_bytes():
        parts.append(part)
        size += len(part)
        if size > LARGEST_REPLY:
            raise httpx2.DecodingError(f"more than {LARGEST_REPLY:,} bytes")
        if time.monotonic() > end:
            raise httpx2.ReadTimeout(f"not whole after {seconds:g} s")
    reply._content = b"".join(parts)  # what `read` would keep


def read_reply(reply: httpx2.Response) -> Completion:
    """A completion; an error unless all that a trace needs is there."""
    content = reply.json()
    choice = content["choices"][0]
    message, reason = choice["message"], choice["finish_reason"]
    text = message.get("content") or ""
    thought = message.get("reasoning_content") or message.get("reasoning")
    tokens = int(content["usage"]["completion_tokens"])
    f"{text}{thought}".encode()  # a text; half a character is none
    if type(text) is not str or not 0 <= tokens < 2**31:
        raise ValueError("no text, or no number of tokens")
    if reason not in ("stop", "length") or not (text or thought):
        raise ValueError(f"empty or broken off: {reason!r}")
    text = with_thought(text, thought, cut=reason == "length")
    return Completion(text, tokens, reason)


def with_thought(text: str, thought: str | None, *, cut: bool = False) -> str:
    """The thought in its tags, however the server hands it over.

    Some give it apart; a template that opens `<think>` itself leaves only
    the closing tag in the text. A thought that the token limit `cut` before
    the answer began stays open, as the local backend leaves it.
    """
    if thought and cut and not text:
        return chat.THINK_OPEN + thought.strip()
    if thought:
        return f"{chat.THINK_OPEN}{thought.strip()}\n</think>\n\n{text}"
    if "</think>" in text and not text.lstrip().startswith("<think>"):
        return chat.THINK_OPEN + text.lstrip()
    return text
