"""Traces from vLLM's engine in this process: many prompts at a time.

The prompts, the file and its resume are those of the local backend; only who
computes is another. vLLM pins a torch and a numpy of its own, so it lives in
an environment of its own, and is started there from the course's folder:

    python3 -m venv vllm-env
    vllm-env/bin/pip install vllm==0.33.0 datasets tenacity
    vllm-env/bin/python -m helpers.scale.vllm --profile full

which is `python3 -m helpers traces --engine vllm` without our environment.
The teacher is loaded in the profile's dtype, never in 4 bits. We ran it with
vLLM 0.32.0 built for CPUs, never on a GPU or with more than one.
"""

from __future__ import annotations

import sys
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

from helpers import CourseError, chat, select_profile
from helpers.cli.commands import command_parser
from helpers.generate import Completion
from helpers.models import processes
from helpers.profiles import Profile, revision_of

CHUNK = 256  # problems handed over at once: what a kill may cost at most


class EngineError(CourseError):
    """vLLM that is missing or gives no usable answer; says what to do."""


def vllm_record(profile: Profile, seed: int) -> dict[str, Any]:
    """What decides a trace besides the question."""
    return {
        "teacher": Path(profile.teacher).name,
        "backend": "vllm",
        "dtype": profile.dtype,
    } | asdict(profile.sampling(seed))


def vllm_traces(
    problems: list[dict],
    path: Path,
    *,
    profile: Profile,
    gpus: int = 1,
    seed: int = 7,
    progress: bool = True,
) -> Any:
    """`generate_traces` by vLLM, the teacher split over that many GPUs.

    Nothing is loaded for a finished file. Raises EngineError without vLLM or
    under a launcher of several processes, ModelError for a teacher that is
    none, TraceFileError as `generate_traces` does.
    """
    from transformers import AutoTokenizer

    from helpers.models import check_model_id
    from helpers.traces import teacher_messages, write_traces

    if processes().num_processes > 1:
        raise EngineError(
            "vLLM starts its own processes. Start it once, without a "
            f"launcher, with --tensor-parallel {processes().num_processes}."
        )
    name = check_model_id(profile.teacher)
    tokenizer = AutoTokenizer.from_pretrained(name, revision=revision_of(name))
    asked = [teacher_messages(row["question"], profile) for row in problems]
    prompts = [chat.prompt_ids(messages, tokenizer) for messages in asked]

    @cache
    def engine() -> Any:  # loaded when the first answer is missing
        return start_engine(profile, max(map(len, prompts)), gpus)

    def answer(chunk: list[dict], number: int) -> list[Completion]:
        first = number * CHUNK
        seeds = [seed * 100_003 + first + i for i in range(len(chunk))]
        outputs = engine().generate(
            [
                {"prompt_token_ids": ids}
                for ids in prompts[first : first + len(chunk)]
            ],
            sampling_params(profile, tokenizer, seeds),
            use_tqdm=progress,
        )
        return [
            read_output(output.outputs[0], messages, tokenizer)
            for output, messages in zip(outputs, asked[first:], strict=False)
        ]

    record = vllm_record(profile, seed)
    return write_traces(problems, path, answer, record=record, size=CHUNK)


def start_engine(profile: Profile, longest: int, gpus: int) -> Any:
    """The teacher in vLLM, for prompts of at most `longest` tokens.

    The context is no longer than needed: that of a model made for very long
    ones would not fit beside its weights. Raises EngineError without vLLM.
    """
    try:
        from vllm import LLM
    except ImportError as error:
        raise EngineError(
            f"vLLM cannot be imported here ({error}). Make an environment of "
            "its own: `python3 -m venv vllm-env`, `vllm-env/bin/pip install "
            "vllm==0.33.0 datasets tenacity`, then from the course's folder "
            "`vllm-env/bin/python -m helpers.scale.vllm` with the options of "
            "`traces`."
        ) from error
    return LLM(
        profile.teacher,
        revision=revision_of(profile.teacher),
        dtype=profile.dtype,
        tensor_parallel_size=gpus,
        max_model_len=longest + profile.max_new_tokens,
    )


def sampling_params(
    profile: Profile, tokenizer: Any, seeds: list[int]
) -> list[Any]:
    """One a request; tokens stay tokens, `completion_text` decodes them."""
    from vllm import SamplingParams

    turn = chat.encode_text(chat.end_of_turn(tokenizer), tokenizer)[0]
    return [
        SamplingParams(
            temperature=profile.sampling_temperature,
            top_p=profile.top_p,
            top_k=profile.top_k,
            max_tokens=profile.max_new_tokens,
            seed=seed,
            stop_token_ids=[turn],
            detokenize=False,
        )
        for seed in seeds
    ]


def read_output(
    output: Any, messages: chat.Messages, tokenizer: Any
) -> Completion:
    """One of vLLM's outputs as the local backend would have given it.

    Raises EngineError for an answer that neither ended nor met the limit.
    """
    if output.finish_reason not in ("stop", "length"):
        raise EngineError(
            f"vLLM broke an answer off ({output.finish_reason!r}). Start the "
            "same command again; it continues with that chunk."
        )
    ids = list(output.token_ids)
    prompt = chat.render(messages, tokenizer, generate=True)
    text = chat.completion_text(ids, prompt, tokenizer)
    return Completion(text, len(ids), output.finish_reason)


def main(argv: list[str]) -> int:
    """`python -m helpers.scale.vllm`, in vLLM's environment."""
    common = command_parser("traces", "", add_help=False)
    select_profile(common.parse_known_args(argv)[0].profile)
    from helpers.cli.traces import main as traces

    return traces(["--engine", "vllm", *argv])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
