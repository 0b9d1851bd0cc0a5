"""Traces from vLLM's engine in this process: many prompts at a time.

The prompts, the file and its resume are those of the local backend; only who
computes is another. vLLM pins a torch and a numpy of its own, so it lives in
an environment of its own, and is started there from the course's folder:

    python3 -m venv vllm-env
    vllm-env/bin/pip install vllm==0.33.0 datasets tenacity
    vllm-env/bin/python -m helpers.trace_vllm --profile full

which is `python3 -m helpers traces --engine vllm` without our environment.
The teacher is loaded in the profile's dtype, never in 4 bits.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from helpers import chat, parallel, select_profile
from helpers.commands import command_parser
from helpers.generate import Completion
from helpers.hub_models import revision_of
from helpers.profiles import Profile

CHUNK = 256  # problems handed over at once: what a kill may cost at most


class EngineError(RuntimeError):
    """vLLM that is missing or gives no usable answer; says what to do."""


def vllm_record(profile: Profile, seed: int) -> dict[str, Any]:
    """What decides a trace besides the question."""
    return {
        "teacher": Path(profile.teacher).name,
        "backend": "vllm",
        "dtype": profile.dtype,
        "temperature": profile.temperature,
        "top_p": profile.top_p,
        "top_k": profile.top_k,
        "max_new_tokens": profile.max_new_tokens,
        "seed": seed,
    }


def vllm_traces(
    problems: list[dict],
    path: Path,
    *,
    profile: Profile,
    tensor_parallel: int = 1,
    seed: int = 7,
    progress: bool = True,
) -> Any:
    """`generate_traces` by vLLM, the teacher split over that many GPUs.

    Nothing is loaded for a finished file. Raises EngineError without vLLM or
    under a launcher of several processes, ModelError for a teacher that is
    none, TraceFileError as `generate_traces` does.
    """
    from helpers.traces import teacher_messages, write_traces

    if parallel.world() > 1:
        raise EngineError(
            "vLLM starts its own processes. Start it once, without a "
            f"launcher, with --tensor-parallel {parallel.world()}."
        )
    tokenizer = load_tokenizer(profile)
    prompts = [
        chat.render(
            teacher_messages(problem["question"], profile),
            tokenizer,
            generate=True,
        )
        for problem in problems
    ]
    ask: Callable[..., list[Completion]] | None = None

    def answer(chunk: list[dict], number: int) -> list[Completion]:
        nonlocal ask
        if ask is None:
            ask = start_engine(profile, tokenizer, prompts, tensor_parallel)
        first = number * CHUNK
        seeds = [seed * 100_003 + first + i for i in range(len(chunk))]
        return ask(prompts[first : first + len(chunk)], seeds, progress)

    record = vllm_record(profile, seed)
    return write_traces(problems, path, answer, record=record, size=CHUNK)


def load_tokenizer(profile: Profile) -> Any:
    """The teacher's, as the local backend loads it."""
    from transformers import AutoTokenizer

    from helpers.models import LOAD_ERRORS, check_model_id, load_error

    name = check_model_id(profile.teacher)
    try:
        return AutoTokenizer.from_pretrained(name, revision=revision_of(name))
    except LOAD_ERRORS as error:
        raise load_error(name, error) from error


def start_engine(
    profile: Profile, tokenizer: Any, prompts: list[str], tensor_parallel: int
) -> Callable[[list[str], list[int], bool], list[Completion]]:
    """Load the teacher; a function from prompts and seeds to completions.

    The context is as long as the longest prompt and answer ask for, so that
    a model made for very long ones fits beside its cache.
    """
    try:
        from vllm import LLM, SamplingParams
    except ImportError as error:
        raise EngineError(
            f"vLLM cannot be imported here ({error}). Make an environment of "
            "its own: `python3 -m venv vllm-env`, `vllm-env/bin/pip install "
            "vllm==0.33.0 datasets tenacity`, then from the course's folder "
            "`vllm-env/bin/python -m helpers.trace_vllm` with the options of "
            "`traces`."
        ) from error
    longest = max(len(chat.encode_text(text, tokenizer)) for text in prompts)
    engine = LLM(
        profile.teacher,
        revision=revision_of(profile.teacher),
        dtype=profile.dtype,
        tensor_parallel_size=tensor_parallel,
        max_model_len=longest + profile.max_new_tokens,
    )
    turn = chat.encode_text(chat.end_of_turn(tokenizer), tokenizer)[0]

    def ask(
        texts: list[str], seeds: list[int], progress: bool
    ) -> list[Completion]:
        encoded = [chat.encode_text(text, tokenizer) for text in texts]
        for ids in encoded:
            chat.check_single_bos(ids, tokenizer)
        outputs = engine.generate(
            [{"prompt_token_ids": ids} for ids in encoded],
            [
                SamplingParams(
                    temperature=profile.temperature,
                    top_p=profile.top_p,
                    top_k=profile.top_k,
                    max_tokens=profile.max_new_tokens,
                    seed=seed,
                    stop_token_ids=[turn],
                    detokenize=False,  # completion_text does it
                )
                for seed in seeds
            ],
            use_tqdm=progress,
        )
        return [
            read_output(output.outputs[0], text, tokenizer)
            for output, text in zip(outputs, texts, strict=True)
        ]

    return ask


def read_output(output: Any, prompt: str, tokenizer: Any) -> Completion:
    """One of vLLM's outputs as the local backend would have given it."""
    if output.finish_reason not in ("stop", "length"):
        raise EngineError(
            f"vLLM broke an answer off ({output.finish_reason!r}). Start the "
            "same command again; it continues with that chunk."
        )
    ids = list(output.token_ids)
    text = chat.completion_text(ids, prompt, tokenizer)
    return Completion(text, len(ids), output.finish_reason)


def main(argv: list[str]) -> int:
    """`python -m helpers.trace_vllm`, in vLLM's environment."""
    common = command_parser("traces", "", add_help=False)
    select_profile(common.parse_known_args(argv)[0].profile)
    from helpers.trace_command import main as traces

    return traces(["--engine", "vllm", *argv])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
