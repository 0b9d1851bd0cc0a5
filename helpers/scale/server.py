"""Traces from a server: vLLM, llama.cpp, Ollama, `transformers serve`.

Anything that speaks OpenAI's chat-completions protocol will do. The server
applies the chat template and counts the tokens. Each question has a seed of
its own, so a second run asks only what is missing.

`transformers serve` computes one answer after another and has one random
generator for all of them: with --concurrency 1 the same seed gives the same
file, with more the answers are as good but not repeatable. It loads one model
and wants that very name in --model: a folder is spelled as it was started.
"""

from __future__ import annotations

import json
import os
import re
import threading
from collections import deque
from collections.abc import Generator
from concurrent.futures import Future, wait
from dataclasses import dataclass, field
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import httpx2  # the openai SDK's own httpx
import openai
from tqdm.auto import tqdm

from helpers import CourseError, chat
from helpers.generate import Completion
from helpers.profiles import Profile
from helpers.traces import sampling_record, teacher_messages, write_traces

AHEAD = 4  # questions a worker past the first gap: what a kill may cost


@dataclass(frozen=True)
class Server:
    """Where and how to ask.

    url: up to and including `/v1`. model: the name that the server knows.
    concurrency: questions in flight. timeout: seconds for one answer. tries:
    attempts for one answer. The key comes from DISTILL_API_KEY and is written
    nowhere.
    """

    url: str
    model: str
    concurrency: int = 16
    timeout: float = 600.0
    tries: int = 6
    key: str = field(
        default_factory=lambda: os.environ.get("DISTILL_API_KEY", "none"),
        repr=False,
    )

    def client(self) -> openai.OpenAI:
        """The SDK, which tries 408, 409, 429, 5xx and silence again."""
        limits = httpx2.Limits(max_connections=self.concurrency)
        return openai.OpenAI(
            base_url=self.url,
            api_key=self.key,
            max_retries=self.tries - 1,
            timeout=httpx2.Timeout(self.timeout, connect=10.0, pool=None),
            http_client=openai.DefaultHttpxClient(
                limits=limits,
                follow_redirects=False,
                trust_env=False,  # no proxy between us and a local server
            ),
        )

    def error(self, reason: str, cure: str) -> CourseError:
        """What went wrong there, without key or password."""
        place = re.sub(r"//[^/@]*@", "//", self.url)
        reason = (
            reason if self.key == "none" else reason.replace(self.key, "***")
        )
        return CourseError(f"{place}: {reason}. {cure}")


def server_traces(
    problems: list[dict],
    server: Server,
    path: Path,
    *,
    profile: Profile,
    seed: int = 7,
    progress: bool = True,
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

    def answers(done: int) -> Generator[Completion]:
        return ask_all(server, bodies[done:], progress=progress)

    record = sampling_record(server.model, {"backend": "server"}, sampling)
    return write_traces(problems, path, answers, record=record)


def ask_all(
    server: Server, bodies: list[dict], *, progress: bool = True
) -> Generator[Completion]:
    """An answer to each request, in their order, as they come.

    Raises the CourseError of the first that stays without an answer, when
    all before it are given. That, and Ctrl-C, ends the rest.
    """
    client, todo = server.client(), SimpleQueue()
    bar = tqdm(total=len(bodies), desc="teacher", disable=not progress)

    def work() -> None:
        while (job := todo.get()) is not None:
            body, future = job
            try:
                future.set_result(persist(server, client, body))
            except Exception as error:
                future.set_exception(error)

    for _ in range(server.concurrency):  # daemons: no exit waits for them
        threading.Thread(target=work, daemon=True).start()
    begun: deque[Future] = deque()
    try:
        for body in bodies:
            begun.append(Future())
            todo.put((body, begun[-1]))
            if len(begun) == AHEAD * server.concurrency:
                yield result(begun.popleft())
                bar.update()
        while begun:
            yield result(begun.popleft())
            bar.update()
    finally:
        client.close()  # what still waits in the queue is not sent
        for _ in range(server.concurrency):
            todo.put(None)
        bar.close()


def result(future: Future) -> Completion:
    """Its result; Windows takes no Ctrl-C inside of an endless wait."""
    while not future.done():
        wait([future], timeout=0.5)
    return future.result()


def persist(server: Server, client: openai.OpenAI, body: dict) -> Completion:
    """Ask until there is a whole answer; CourseError with the cure if not."""
    try:
        for left in reversed(range(server.tries)):
            reply = post(client, body)
            try:
                return read_reply(reply)
            except (ValueError, LookupError, TypeError) as error:
                reason = f"{type(error).__name__} in {reply.text[:80]!r}"
                if not left:
                    raise server.error(
                        f"no whole chat completion, but {reason}",
                        "Is this an OpenAI-compatible server?",
                    ) from error
    except openai.APIStatusError as error:
        raise server.error(
            f"status {error.status_code}, {error.response.text[:200]!r}",
            "Check the model's name and DISTILL_API_KEY, or lower "
            "--concurrency if it is busy.",
        ) from None
    except openai.APIConnectionError as error:
        late = isinstance(error.__cause__, httpx2.ReadTimeout)
        raise server.error(
            f"no answer in {server.tries} tries",
            f"One takes longer than {server.timeout:g} seconds: raise "
            "--timeout, or lower --concurrency."
            if late
            else "Is the server running, and is the address right, with /v1 "
            "at its end?",
        ) from error


def post(client: openai.OpenAI, body: dict) -> httpx2.Response:
    """One request, said in other words if `top_k` is refused."""
    options = {"cast_to": httpx2.Response}
    try:
        return client.post("/chat/completions", body=body, **options)
    except openai.UnprocessableEntityError as error:
        if "top_k" not in error.response.text:
            raise
    body = other_words(body)
    return client.post("/chat/completions", body=body, **options)


def other_words(body: dict[str, Any]) -> dict[str, Any]:
    """The same request for `transformers serve`, which refuses `top_k`.

    It takes a generation configuration as text, and whether to sample from
    there alone: a temperature does not switch sampling on.
    """
    sampling = {"do_sample": body["temperature"] > 0, "top_k": body["top_k"]}
    rest = {key: value for key, value in body.items() if key != "top_k"}
    return rest | {"generation_config": json.dumps(sampling)}


def read_reply(reply: httpx2.Response) -> Completion:
    """A completion; an error unless all that a trace needs is there."""
    content = reply.json()
    choice = content["choices"][0]
    message, reason = choice["message"], choice["finish_reason"]
    text = message.get("content") or ""
    thought = message.get("reasoning_content") or message.get("reasoning")
    if reason not in ("stop", "length") or not (text or thought):
        raise ValueError(f"empty or broken off: {reason!r}")
    text = with_thought(text, thought, cut=reason == "length")
    return Completion(text, int(content["usage"]["completion_tokens"]), reason)


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
