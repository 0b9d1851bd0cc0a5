"""Traces from vLLM's engine in this process: many prompts at a time.

Only who computes is another: prompts, file and resume are those of the local
backend. vLLM pins a torch of its own, so it lives in an environment of its
own, and is started there from the course's folder:

    python3 -m venv vllm-env
    vllm-env/bin/pip install vllm==0.33.0 datasets accelerate
    vllm-env/bin/python -m helpers.scale.vllm --profile full

The engine gets all missing problems at once and fills the place of a finished
answer with the next one. The seed is the engine's: one for each request would
switch its fast sampler off. So an interrupted run ends in other words than a
whole one. The teacher is loaded in the profile's dtype, never in 4 bits. We
have read the API in vLLM 0.33.0's sources and run an earlier version of this
on 0.32.0 built for CPUs, never on a GPU.
"""

from __future__ import annotations

import sys
from collections.abc import Generator
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from helpers import CourseError, chat, select_profile
from helpers.cli.commands import command_parser
from helpers.generate import Completion
from helpers.models import check_model_id, processes
from helpers.profiles import Profile, revision_of
from helpers.scale.shards import write_share
from helpers.traces import sampling_record, teacher_messages, write_traces


def vllm_traces(
    problems: list[dict],
    path: Path,
    *,
    profile: Profile,
    gpus: int = 1,
    shard: tuple[int, int] = (0, 1),
    seed: int = 7,
) -> Any:
    """`generate_traces` by vLLM, the teacher split over that many GPUs.

    shard: which share of the problems this engine answers, and of how many;
    None is returned while others are at work. Nothing is loaded for a
    finished file. Raises CourseError without vLLM or under a launcher,
    ModelError for a teacher that is none, TraceFileError as
    `generate_traces` does.
    """
    from transformers import AutoTokenizer

    if processes().num_processes > 1:
        raise CourseError(
            "vLLM starts its own processes: leave the launcher out. Several "
            "cards: --tensor-parallel, or --shard 0/2, --shard 1/2 and so on."
        )
    name = check_model_id(profile.teacher)
    tokenizer = AutoTokenizer.from_pretrained(
        name, revision=revision_of(name), trust_remote_code=False
    )
    made_by = {"backend": "vllm", "dtype": profile.dtype, "seeds": "engine"}
    record = sampling_record(name, made_by, profile, seed)

    def write(problems: list[dict], path: Path) -> Any:
        questions = [row["question"] for row in problems]
        chats = [teacher_messages(text, profile) for text in questions]

        def answers(done: int) -> Generator[Completion]:
            longest = max(len(chat.prompt_ids(c, tokenizer)) for c in chats)
            started = start_engine(profile, tokenizer, longest, gpus, seed)
            return ask_all(*started, chats[done:], tokenizer)

        return write_traces(problems, path, answers, record=record)

    return write_share(problems, path, write, shard=shard)


def start_engine(
    profile: Profile, tokenizer: Any, longest: int, gpus: int, seed: int
) -> tuple[Any, Any]:
    """The teacher in vLLM, and how it samples; longest: tokens of a prompt.

    The context is no longer than needed: that of a model made for very long
    ones would not fit beside its weights. Raises CourseError without vLLM.
    """
    try:
        from vllm import EngineArgs, LLMEngine, SamplingParams
        from vllm.sampling_params import RequestOutputKind
    except ImportError as error:
        raise CourseError(
            f"vLLM cannot be imported here ({error}). In an environment of "
            "its own: `pip install vllm==0.33.0 datasets accelerate`, then "
            "`python -m helpers.scale.vllm` with the options of `traces`."
        ) from error
    sampling = profile.sampling(seed)
    turn = chat.encode_text(chat.end_of_turn(tokenizer), tokenizer)
    params = SamplingParams(
        temperature=sampling.temperature,
        top_p=sampling.top_p,
        top_k=sampling.top_k,
        max_tokens=sampling.max_new_tokens,
        stop_token_ids=turn[:1],
        detokenize=False,  # `completion_text` does
        output_kind=RequestOutputKind.FINAL_ONLY,
    )
    settings = EngineArgs(
        model=profile.teacher,
        revision=revision_of(profile.teacher),
        dtype=profile.dtype,
        seed=seed,
        tensor_parallel_size=gpus,
        max_model_len=longest + sampling.max_new_tokens,
    )
    return LLMEngine.from_engine_args(settings), params


def ask_all(
    engine: Any, params: Any, chats: list[chat.Messages], tokenizer: Any
) -> Generator[Completion]:
    """The answer to each chat, as soon as all before it are there.

    Raises CourseError for one that neither ended nor met the limit.
    """
    for number, messages in enumerate(chats):
        prompt = {"prompt_token_ids": chat.prompt_ids(messages, tokenizer)}
        engine.add_request(str(number), prompt, params)
    done: dict[str, Any] = {}
    for number, messages in enumerate(tqdm(chats, desc="teacher")):
        while str(number) not in done:
            done |= {
                out.request_id: out for out in engine.step() if out.finished
            }
        output = done.pop(str(number)).outputs[0]
        if output.finish_reason not in ("stop", "length"):
            raise CourseError(
                f"vLLM broke an answer off ({output.finish_reason!r}). Start "
                "the same command again; it continues with that answer."
            )
        ids = list(output.token_ids)
        rendered = chat.render(messages, tokenizer, generate=True)
        text = chat.completion_text(ids, rendered, tokenizer)
        yield Completion(text, len(ids), output.finish_reason)


def main(argv: list[str]) -> int:
    """`python -m helpers.scale.vllm`, in vLLM's environment."""
    common = command_parser("traces", "", add_help=False)
    select_profile(common.parse_known_args(argv)[0].profile)
    from helpers.cli.traces import main as traces

    return traces(["--engine", "vllm", *argv])


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except CourseError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
