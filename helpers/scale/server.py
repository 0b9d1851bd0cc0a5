"""Traces from a server: vLLM, llama.cpp, Ollama, `transformers serve`.

Anything that speaks OpenAI's chat-completions protocol will do. The file and
its order are those of helpers.traces; only who answers is another. The server
applies the chat template and counts the tokens. Each question has a seed of
its own, so a second run asks only what is missing.

`transformers serve` computes one answer after another and has one random
generator for all of them: with --concurrency 1 the same seed gives the same
file, with more the answers are as good but not repeatable. It loads one model
and wants that very name in --model: a folder is spelled as it was started.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import wait
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import httpx
from tenacity import (
    AsyncRetrying,
    retry_if_exception_type,
    stop_after_attempt,
    wait_random_exponential,
)
from tqdm.auto import tqdm

from helpers import CourseError, chat
from helpers.generate import Completion
from helpers.profiles import Profile

BUSY = {408, 409, 425, 429, 500, 502, 503, 504}
AHEAD = 4  # questions a worker past the first gap: what a kill may cost


class ServerError(CourseError):
    """A server that gives no usable answer; says what and what to do."""


class BadReply(ServerError):
    """One reply that is worth another try: busy, cut short, or rubbish."""


@dataclass(frozen=True)
class Server:
    """Where and how to ask.

    url: up to and including `/v1`. model: the name that the server knows.
    concurrency: questions in flight. timeout: seconds for one answer. tries:
    attempts for one answer, with random, exponentially growing pauses of at
    most `pause` seconds. The key comes from DISTILL_API_KEY and is written
    nowhere.
    """

    url: str
    model: str
    concurrency: int = 16
    timeout: float = 600.0
    tries: int = 6
    pause: float = 30.0
    key: str = field(
        default_factory=lambda: os.environ.get("DISTILL_API_KEY", "none"),
        repr=False,
    )

    def record(self, profile: Profile, seed: int) -> dict[str, Any]:
        """What decides a trace besides the question, as far as we know."""
        return {
            "teacher": Path(self.model).name,
            "backend": "server",
        } | asdict(profile.sampling(seed))


def ask_all(
    server: Server,
    questions: list[chat.Messages],
    *,
    profile: Profile,
    seeds: list[int],
    keep: Callable[[Completion], None],
    bar: Any = None,
    transport: Any = None,
) -> None:
    """Give `keep` one answer a question, in their order, as they come.

    Raises the ServerError of the first question that stays without an
    answer, when all before it are kept. That, and Ctrl-C, cancels the rest.
    """
    bar = tqdm(disable=True) if bar is None else bar

    async def ask() -> None:
        limit = asyncio.Semaphore(server.concurrency)
        async with httpx.AsyncClient(
            base_url=server.url.rstrip("/") + "/",
            headers={"Authorization": f"Bearer {server.key}"},
            timeout=httpx.Timeout(server.timeout, connect=10.0),
            trust_env=False,  # no proxy between us and a local server
            transport=transport,
        ) as client:

            async def one(messages: Any, seed: int) -> Completion:
                async with limit:
                    body = request(server, messages, profile, seed)
                    answer = await persist(client, body, server)
                bar.update(answer.tokens)
                return answer

            jobs = map(one, questions, seeds)
            await keep_in_order(jobs, keep, window=AHEAD * server.concurrency)

    run_anywhere(ask)


async def keep_in_order(
    jobs: Iterable[Any], keep: Callable[[Any], None], *, window: int
) -> None:
    """Await the jobs in their order, at most `window` of them begun."""
    begun: deque[asyncio.Task] = deque()
    try:
        for job in jobs:
            begun.append(asyncio.create_task(job))
            if len(begun) == window:
                keep(await begun.popleft())
        while begun:
            keep(await begun.popleft())
    finally:
        for task in begun:
            task.cancel()
        await asyncio.gather(*begun, return_exceptions=True)


def run_anywhere(work: Any) -> None:
    """Run a coroutine, also inside a notebook, which has a loop of its own.

    Ctrl-C is raised here, in the main thread; leaving the portal with an
    exception cancels the coroutine in its thread.
    """
    from anyio.from_thread import start_blocking_portal

    with start_blocking_portal() as portal:
        running = portal.start_task_soon(work)
        while not running.done():  # Windows takes no Ctrl-C inside of a wait
            wait([running], timeout=0.5)
        running.result()


def request(
    server: Server, messages: chat.Messages, profile: Profile, seed: int
) -> dict[str, Any]:
    """The body of one request; top_k is an extension most servers know.

    It is sent even when it is 0 (off): a server that hears nothing takes the
    value in the model's generation_config.json.
    """
    return {
        "model": server.model,
        "messages": messages,
        "temperature": profile.sampling_temperature,
        "top_p": profile.top_p,
        "top_k": profile.top_k,
        "max_tokens": profile.max_new_tokens,
        "seed": seed,
    }


def other_words(body: dict[str, Any]) -> dict[str, Any]:
    """The same request for `transformers serve`, which refuses `top_k`.

    It takes a generation configuration as text, and whether to sample from
    there alone: a temperature does not switch sampling on.
    """
    sampling = {"do_sample": body["temperature"] > 0, "top_k": body["top_k"]}
    rest = {key: value for key, value in body.items() if key != "top_k"}
    return rest | {"generation_config": json.dumps(sampling)}


async def persist(
    client: httpx.AsyncClient, body: dict[str, Any], server: Server
) -> Completion:
    """Ask until there is a whole answer, at most `tries` times.

    Raises ServerError with the cure that fits the last try.
    """
    retrying = AsyncRetrying(
        stop=stop_after_attempt(server.tries),
        wait=wait_random_exponential(multiplier=0.5, max=server.pause),
        retry=retry_if_exception_type((httpx.TransportError, BadReply)),
        reraise=True,
    )
    try:
        return await retrying(once, client, body)
    except httpx.TransportError as error:
        raise silent(server, error) from error
    except ServerError as error:
        raise ServerError(f"{server.url}: {error}") from error


def silent(server: Server, error: httpx.TransportError) -> ServerError:
    """What to do about a server that is too slow, or is not there."""
    cure = (
        "Is the server running, and is the address right, with /v1 at its end?"
    )
    late = isinstance(error, httpx.TimeoutException)
    if late and not isinstance(error, httpx.ConnectTimeout):
        cure = (
            f"An answer takes longer than {server.timeout:g} seconds: raise "
            "--timeout, or lower --concurrency."
        )
    return ServerError(
        f"{server.url} did not answer in {server.tries} tries "
        f"({type(error).__name__}). {cure}"
    )


async def once(client: httpx.AsyncClient, body: dict) -> Completion:
    """One request; BadReply for what another try may cure."""
    reply = await client.post("chat/completions", json=body)
    if reply.status_code == 422 and "top_k" in reply.text:
        body = other_words(body)
        reply = await client.post("chat/completions", json=body)
    if reply.status_code in BUSY:
        raise BadReply(
            f"status {reply.status_code} on every try. Lower --concurrency, "
            "or look into the server's log."
        )
    if reply.status_code != 200:
        raise ServerError(
            f"status {reply.status_code}: {reply.text[:200]!r}. Check the "
            "model's name and DISTILL_API_KEY."
        )
    return read_reply(reply)


def read_reply(reply: httpx.Response) -> Completion:
    """A completion; BadReply unless everything that a trace needs is there."""
    try:
        content = reply.json()
        choice = content["choices"][0]
        message = choice["message"]
        text = message.get("content") or ""
        tokens = int(content["usage"]["completion_tokens"])
        reason = choice["finish_reason"]
    except (ValueError, KeyError, IndexError, TypeError) as error:
        raise BadReply(
            f"a reply that is no chat completion ({type(error).__name__}): "
            f"{reply.text[:80]!r}. Is this an OpenAI-compatible server?"
        ) from error
    thought = message.get("reasoning_content") or message.get("reasoning")
    if reason not in ("stop", "length") or not (text or thought):
        raise BadReply(f"an empty or broken-off answer ({reason!r}).")
    cut = reason == "length"
    return Completion(with_thought(text, thought, cut=cut), tokens, reason)


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
