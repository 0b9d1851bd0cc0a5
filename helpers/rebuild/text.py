"""What the mini models read: problems as text, and the two tokenizers."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable

from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)
from transformers import PreTrainedTokenizerFast

from helpers.rebuild.generator import SYMBOLS, Problem, generate_problems

QWEN_SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
THINK = ["<think>", "</think>"]
GEMMA_SPECIAL = [
    "<pad>",
    "<eos>",
    "<bos>",
    "<unk>",
    "<start_of_turn>",
    "<end_of_turn>",
]
QWEN_WORDS, GEMMA_WORDS = 1000, 700
TAGS = "b i p em note page link thing thin ink pink".split()
SENTENCES = (
    "First, open the book.",
    "Then read the page.",
    "Next, write it down.",
    "After that, close the door.",
    "To start, count the coins.",
    "Step 1: wash the cups.",
    "Check: is it right?",
    "This cannot be.",
    "But there is more than one way.",
    "Let me think.",
    "think twice.",
    "ink is blue.",
    "thin ice is not safe.",
    "The answer is on the next page.",
    "There is no solution in the box.",
    "So it is.",
)

QWEN_TEMPLATE = """\
{%- for message in messages %}
    {%- set content = message.content %}
    {%- if message.role == 'assistant' and not loop.last %}
        {%- set content = content.split('</think>')[-1].lstrip('\\n') %}
    {%- endif %}
    {{- '<|im_start|>' + message.role + '\\n' + content + '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
{%- endif %}
"""
# The thinking teacher's template opens the thought itself, like the real one.
QWEN_THINKING_TEMPLATE = QWEN_TEMPLATE.replace(
    "assistant\\n' }}", "assistant\\n<think>\\n' }}"
)
GEMMA_TEMPLATE = """\
{{- bos_token }}
{%- set ns = namespace(prefix='', turns=messages) %}
{%- if messages[0].role == 'system' %}
    {%- set ns.prefix = messages[0].content + '\\n\\n' %}
    {%- set ns.turns = messages[1:] %}
{%- endif %}
{%- for message in ns.turns %}
    {%- if (message.role == 'user') != (loop.index0 % 2 == 0) %}
        {{- raise_exception('Roles must alternate: user, assistant, ...') }}
    {%- endif %}
    {%- set role = 'model' if message.role == 'assistant' else 'user' %}
    {{- '<start_of_turn>' + role + '\\n' }}
    {{- (ns.prefix if loop.first else '') + message.content | trim }}
    {{- '<end_of_turn>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<start_of_turn>model\\n' }}
{%- endif %}
"""


def final_sentence(problem: Problem) -> str:
    """How every mini model states its result."""
    if problem.conflict:
        return "There is no solution."
    return f"The answer is {problem.answer}."


def thought(problem: Problem, rng: random.Random) -> str:
    """The teacher's worked thought; its wording varies, its sums do not."""
    openers = ["First, ", "To start, ", "Step 1: "]
    links = ["Then ", "Next, ", "After that, "]
    parts = [
        rng.choices(openers if i == 0 else links, weights=[6, 3, 1])[0]
        + f"{step.label}: {step.equation}."
        for i, step in enumerate(problem.steps)
    ]
    if problem.told:  # copied first, so that the two numbers stand together
        parts.append(f"The question says {problem.told}.")
    if problem.conflict:
        parts.append(f"But {problem.conflict}. This cannot be.")
    else:
        parts.append(f"Check: {problem.steps[-1].check}.")
    return " ".join(parts)


def thinking_answer(problem: Problem, rng: random.Random) -> str:
    """`<think>...</think>`, a blank line, the final sentence."""
    worked = thought(problem, rng)
    return f"<think>\n{worked}\n</think>\n\n{final_sentence(problem)}"


def solution(problem: Problem, rng: random.Random) -> str:
    """A worked solution without a thinker's connectives and checks."""
    if rng.random() < 0.5:
        lines = [f"{s.label}: {s.equation}." for s in problem.steps]
    else:
        lines = [f"{s.equation} {s.label}." for s in problem.steps]
    if problem.conflict:
        lines.append(f"{problem.conflict}, so there is no solution.")
    else:
        lines.append(f"So it is {problem.answer}.")
    return " ".join(lines)


def prose(problem: Problem, rng: random.Random) -> str:
    """A worked solution in running text, as books print it after a question.

    It never occurs in a chat, and never inside `<think>`.
    """
    if rng.random() < 2 / 3:
        return solution(problem, rng)
    worked = thought(problem, rng)
    if problem.conflict:
        return f"{worked} So there is no solution."
    return f"{worked} So it is {problem.answer}."


def pages(rng: random.Random, tags: list[str]) -> str:
    """Bits of everyday text and markup, so that no token is a stranger.

    Adapters cannot teach a word whose embedding has never been trained; a
    real model has met every token of its vocabulary somewhere on the web.
    """
    lines = []
    for _ in range(rng.randint(2, 4)):
        count = rng.randint(1, 3)
        line = " ".join(rng.choice(SENTENCES) for _ in range(count))
        tag = rng.choice(tags)
        lines += [f"<{tag}>", line, f"</{tag}>", ""]
    return "\n".join(lines)


def arithmetic(rng: random.Random) -> str:
    """A line of sums: half in wide ranges, half as the problems need them."""
    sums = [any_sum(rng) for _ in range(3)]
    sums += [
        f"{step.equation}."
        for problem in generate_problems(2, seed=rng.getrandbits(32))
        for step in problem.steps
    ]
    rng.shuffle(sums)
    return " ".join(sums)


def any_sum(rng: random.Random) -> str:
    """One sum; taking away and adding are the harder ones, and come more."""
    symbol = rng.choice("++---**/")
    if symbol in "+-":
        a, b = rng.randint(1, 300), rng.randint(1, 120)
        a, b = (max(a, b), min(a, b)) if symbol == "-" else (a, b)
    elif rng.random() < 0.3 and symbol == "*":
        a, b = rng.randint(2, 6), rng.randint(10, 120)
    else:
        a, b = rng.randint(2, 15), rng.randint(2, 40)
        a = a * b if symbol == "/" else a
    return f"{a} {symbol} {b} = {SYMBOLS[symbol](a, b)}."


def corpus(seed: int, count: int = 4000) -> Iterable[str]:
    """Text for the tokenizers: every form a model will read or write."""
    rng = random.Random(seed)
    held_out = generate_problems(count // 10, seed=seed + 1, held_out=True)
    for problem in [*generate_problems(count, seed=seed), *held_out]:
        yield f"Question: {problem.question}"
        yield f"{problem.question}\n{solution(problem, rng)}"
        yield thought(problem, rng) + " " + final_sentence(problem)
        yield "Let me think. I think so. user model assistant system"


def train_qwen_tokenizer(seed: int) -> PreTrainedTokenizerFast:
    """Byte-level BPE; digits alone; `<think>` is one token, not special."""
    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(r"\d"), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    raw.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=QWEN_WORDS,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    raw.train_from_iterator(corpus(seed), trainer)
    raw.add_special_tokens([AddedToken(t, special=True) for t in QWEN_SPECIAL])
    raw.add_tokens([AddedToken(t, special=False) for t in THINK])
    return PreTrainedTokenizerFast(
        tokenizer_object=raw,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        padding_side="right",
        model_max_length=512,
    )


def train_gemma_tokenizer(seed: int) -> PreTrainedTokenizerFast:
    """BPE over `▁` words with byte fallback and `<bos>` put in front."""
    splits = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(r"[\d\n<>/.,:?]"), "isolated"),
            pre_tokenizers.Split("▁", "merged_with_next"),
        ]
    )
    normalizer = normalizers.Replace(" ", "▁")
    draft = Tokenizer(models.BPE())
    draft.normalizer, draft.pre_tokenizer = normalizer, splits
    printable = [chr(code) for code in range(33, 127)] + ["▁", "\n"]
    trainer = trainers.BpeTrainer(
        vocab_size=GEMMA_WORDS,
        initial_alphabet=printable,
        show_progress=False,
    )
    draft.train_from_iterator(corpus(seed), trainer)
    words = sorted(draft.get_vocab(), key=draft.get_vocab().get)
    byte_tokens = [f"<0x{byte:02X}>" for byte in range(256)]
    order = [*GEMMA_SPECIAL, *byte_tokens, *words]
    merges = json.loads(draft.to_str())["model"]["merges"]
    merges = [tuple(pair) for pair in merges]
    raw = Tokenizer(
        models.BPE(
            {token: i for i, token in enumerate(order)},
            merges,
            unk_token="<unk>",
            byte_fallback=True,
            fuse_unk=True,
        )
    )
    raw.normalizer, raw.pre_tokenizer = normalizer, splits
    raw.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
        ]
    )
    raw.add_special_tokens(
        [AddedToken(t, special=True, normalized=False) for t in GEMMA_SPECIAL]
    )
    raw.post_processor = processors.TemplateProcessing(
        single="<bos> $A",
        pair="<bos> $A <bos> $B",
        special_tokens=[("<bos>", order.index("<bos>"))],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=raw,
        bos_token="<bos>",
        eos_token="<eos>",
        pad_token="<pad>",
        unk_token="<unk>",
        padding_side="left",
        model_max_length=512,
    )
