"""Build the mini lab: problems, two tokenizers, one teacher, two students.

`python3 -m helpers minilab` rebuilds everything from one seed. Training goes
through transformers' Trainer, writes a checkpoint every 500 steps to
data/runs/minilab/ and resumes from the last one after a kill.
"""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import (
    DataCollatorForSeq2Seq,
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    GenerationConfig,
    PreTrainedModel,
    Qwen3Config,
    Qwen3ForCausalLM,
    Trainer,
    TrainingArguments,
    set_seed,
)
from transformers.trainer_utils import get_last_checkpoint

from helpers import chat
from helpers import minilab_text as text
from helpers.commands import command_parser
from helpers.files import DATA, RUNS, write_atomic
from helpers.generator import Problem, generate_problems

MODELS = DATA / "models"
WORK = RUNS / "minilab"
PROBLEMS = DATA / "problems"
SPLITS = {"train": 4500, "validation": 400, "test": 600, "held_out": 400}
EOS = "<|im_end|>"
MAX_LENGTH = 320

Example = dict[str, list[int]]


@dataclass(frozen=True)
class Recipe:
    """How one mini model is made.

    `mix` gives the share of each text form: thinking, at_once, prose, sums.
    """

    name: str
    build: Callable[[], PreTrainedModel]
    tokenizer: Callable[[int], Any]
    template: str
    mix: dict[str, float]
    examples: int
    learning_rate: float = 2e-3


def qwen(*, hidden: int, layers: int, heads: int) -> PreTrainedModel:
    """A Qwen3 with 32-wide heads and a vocabulary padded to 896 rows."""
    config = Qwen3Config(
        vocab_size=896,
        hidden_size=hidden,
        intermediate_size=3 * hidden,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=2,
        head_dim=32,
        tie_word_embeddings=True,
        max_position_embeddings=1024,
    )
    return Qwen3ForCausalLM(config)


def gemma() -> PreTrainedModel:
    """A Gemma 3 whose layers alternate sliding and full attention."""
    config = Gemma3TextConfig(
        vocab_size=1024,
        hidden_size=128,
        intermediate_size=384,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=1,
        head_dim=32,
        query_pre_attn_scalar=32,
        sliding_window=64,
        layer_types=["sliding_attention", "full_attention"] * 2,
        max_position_embeddings=1024,
    )
    return Gemma3ForCausalLM(config)


AT_ONCE = {"at_once": 0.4, "prose": 0.35, "sums": 0.25}
RECIPES = (
    Recipe(
        name="mini-qwen3",
        build=lambda: qwen(hidden=192, layers=4, heads=6),
        tokenizer=text.train_qwen_tokenizer,
        template=text.QWEN_THINKING_TEMPLATE,
        mix={"thinking": 0.8, "sums": 0.2},
        examples=224_000,
    ),
    Recipe(
        name="mini-gemma3",
        build=gemma,
        tokenizer=text.train_gemma_tokenizer,
        template=text.GEMMA_TEMPLATE,
        mix=AT_ONCE,
        examples=288_000,
    ),
    Recipe(
        name="mini-qwen3-small",
        build=lambda: qwen(hidden=128, layers=3, heads=4),
        tokenizer=text.train_qwen_tokenizer,
        template=text.QWEN_TEMPLATE,
        mix=AT_ONCE,
        examples=256_000,
    ),
)


def build_problems(seed: int) -> dict[str, list[dict]]:
    """Write the four splits as JSON lines; no question occurs twice."""
    seen: set[str] = set()
    splits = {}
    for offset, (split, count) in enumerate(SPLITS.items()):
        problems = generate_problems(
            count,
            seed=seed * 1000 + offset,
            held_out=split == "held_out",
            exclude=seen,
        )
        seen |= {problem.question for problem in problems}
        rows = [
            {
                "id": f"{split}-{number:05d}",
                "question": problem.question,
                "answer": problem.gold,
                "template": problem.template,
                "impossible": bool(problem.conflict),
            }
            for number, problem in enumerate(problems)
        ]
        lines = [json.dumps(row, ensure_ascii=False) for row in rows]
        write_atomic(PROBLEMS / f"{split}.jsonl", "\n".join(lines) + "\n")
        splits[split] = rows
    return splits


def save_tokenizer(recipe: Recipe, seed: int) -> Any:
    """Train, dress with the chat template, save; returns the tokenizer."""
    tokenizer = recipe.tokenizer(seed)
    tokenizer.chat_template = recipe.template
    tokenizer.save_pretrained(MODELS / recipe.name)
    return tokenizer


def encode_form(
    form: str, problem: Problem, tokenizer: Any, rng: random.Random
) -> Example:
    """One training example of the named form, labels included."""
    if form in ("thinking", "at_once"):
        answer = text.final_sentence(problem)
        if form == "thinking":
            answer = text.thinking_answer(problem, rng)
        messages = chat.student_messages(problem.question, answer)
        example = chat.encode_example(
            messages, tokenizer, max_length=MAX_LENGTH
        )
        if example is None:
            raise ValueError(f"longer than {MAX_LENGTH}: {problem.question}")
        if form == "at_once":  # pretraining text: every token is trained on
            example["labels"] = list(example["input_ids"])
        return example
    plain = (
        text.prose(problem, rng) if form == "prose" else text.arithmetic(rng)
    )
    head = [tokenizer.bos_token_id] if tokenizer.bos_token_id else []
    ids = [
        *head,
        *chat.encode_text(plain, tokenizer),
        tokenizer.eos_token_id,
    ]
    return {"input_ids": ids, "labels": list(ids)}


def stream(
    recipe: Recipe, tokenizer: Any, *, seed: int, count: int
) -> Iterator[Example]:
    """`count` training examples; validation and test questions excluded."""
    exclude = set()
    for split in ("validation", "test", "held_out"):
        lines = (PROBLEMS / f"{split}.jsonl").read_text("utf-8").splitlines()
        exclude |= {json.loads(line)["question"] for line in lines}
    rng = random.Random(seed)
    forms, weights = list(recipe.mix), list(recipe.mix.values())
    problems = generate_problems(count, seed=seed, exclude=exclude)
    for problem in problems:
        form = rng.choices(forms, weights=weights)[0]
        yield encode_form(form, problem, tokenizer, rng)


def make_dataset(
    recipe: Recipe, tokenizer: Any, *, seed: int, count: int
) -> Dataset:
    """The examples as a dataset with a `length` column for grouping."""
    rows = list(stream(recipe, tokenizer, seed=seed, count=count))
    return Dataset.from_dict(
        {
            "input_ids": [row["input_ids"] for row in rows],
            "labels": [row["labels"] for row in rows],
            "length": [len(row["input_ids"]) for row in rows],
        }
    )


def finish(model: PreTrainedModel, recipe: Recipe, tokenizer: Any) -> None:
    """Save an ordinary Hugging Face folder: config, weights, generation."""
    names = [chat.end_of_turn(tokenizer), tokenizer.eos_token]
    stops = sorted({tokenizer.convert_tokens_to_ids(name) for name in names})
    sampling: dict[str, Any] = {"do_sample": False}
    if "thinking" in recipe.mix:  # what the real teacher's card recommends
        sampling = {
            "do_sample": True,
            "temperature": 0.6,
            "top_p": 0.95,
            "top_k": 20,
        }
    model.generation_config = GenerationConfig(
        eos_token_id=stops,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        **sampling,
    )
    model.config.eos_token_id = stops
    model.config.pad_token_id = tokenizer.pad_token_id
    model.config.bos_token_id = tokenizer.bos_token_id
    model.save_pretrained(MODELS / recipe.name)


def train(recipe: Recipe, *, seed: int, examples: int | None = None) -> Path:
    """Train one mini model, or continue where a killed run stopped."""
    set_seed(seed)
    tokenizer = save_tokenizer(recipe, seed)
    model = recipe.build()
    count = examples or recipe.examples
    output = WORK / recipe.name
    arguments = TrainingArguments(
        output_dir=str(output),
        per_device_train_batch_size=64,
        num_train_epochs=1,
        learning_rate=recipe.learning_rate,
        lr_scheduler_type="cosine",
        warmup_steps=100,
        weight_decay=0.01,
        adam_beta2=0.98,
        max_grad_norm=1.0,
        train_sampling_strategy="group_by_length",
        save_steps=500,
        save_total_limit=2,
        logging_steps=50,
        report_to="none",
        use_cpu=not torch.cuda.is_available(),
        seed=seed,
    )
    trainer = Trainer(
        model=model,
        args=arguments,
        train_dataset=make_dataset(recipe, tokenizer, seed=seed, count=count),
        data_collator=DataCollatorForSeq2Seq(tokenizer),
    )
    last = get_last_checkpoint(str(output)) if output.exists() else None
    trainer.train(resume_from_checkpoint=last)
    finish(model, recipe, tokenizer)
    shutil.rmtree(output, ignore_errors=True)
    return MODELS / recipe.name


def main(argv: list[str]) -> int:
    """`python3 -m helpers minilab`."""
    parser = command_parser("minilab", __doc__)
    parser.add_argument(
        "--only",
        choices=["problems", *(recipe.name for recipe in RECIPES)],
        help="build this part alone",
    )
    parser.add_argument(
        "--examples", type=int, help="training examples, for a quick try"
    )
    options = parser.parse_args(argv)
    if options.only in (None, "problems"):
        splits = build_problems(options.seed)
        sizes = {name: len(rows) for name, rows in splits.items()}
        print(f"problems: {sizes}")
    for recipe in RECIPES:
        if options.only in (None, recipe.name):
            folder = train(
                recipe, seed=options.seed, examples=options.examples
            )
            print(f"{recipe.name}: saved to data/models/{folder.name}")
    return 0
