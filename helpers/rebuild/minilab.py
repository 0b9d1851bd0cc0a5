"""Build the mini lab: problems, two tokenizers, one teacher, two students.

`python3 -m helpers minilab` rebuilds everything from one seed. Training goes
through transformers' Trainer, writes a checkpoint every 1,000 steps to
data/runs/minilab/ and resumes from the last one after a kill.
"""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import (
    DataCollatorForSeq2Seq,
    Trainer,
    TrainingArguments,
    set_seed,
)

from helpers.cli.commands import command_parser
from helpers.models import load_teacher
from helpers.problems import load_problems, read_problems
from helpers.profiles import DATA, PROFILES, RUNS, write_atomic
from helpers.rebuild import text
from helpers.rebuild.composed.cards import write_card
from helpers.rebuild.composed.minilab import finish
from helpers.rebuild.composed.recipes import Example, encode_written
from helpers.rebuild.generator import generate_problems
from helpers.rebuild.models import RECIPES, Recipe
from helpers.sft import last_checkpoint

MODELS = DATA / "models"
WORK = RUNS / "minilab"
PROBLEMS = DATA / "problems"
SPLITS = {"train": 4500, "validation": 400, "test": 600, "held_out": 400}


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
    tokenizer = recipe.tokenizer(text.corpus(seed))
    tokenizer.chat_template = recipe.template
    tokenizer.save_pretrained(MODELS / recipe.name)
    return tokenizer


def stream(
    recipe: Recipe, tokenizer: Any, *, seed: int, count: int
) -> Iterator[Example]:
    """`count` training examples; no question that is scored or shown."""
    exclude = set()
    for split in ("validation", "test", "held_out", "showcase"):
        problems = read_problems(PROBLEMS / f"{split}.jsonl")
        exclude |= {problem["question"] for problem in problems}
    rng = random.Random(seed)
    forms, weights = list(recipe.mix), list(recipe.mix.values())
    for problem in generate_problems(count, seed=seed, exclude=exclude):
        form = rng.choices(forms, weights=weights)[0]
        written = text.write_form(form, problem, tokenizer, rng)
        yield encode_written(form, problem.question, written, tokenizer)


def make_dataset(
    recipe: Recipe, tokenizer: Any, *, seed: int, count: int
) -> Dataset:
    """The examples in training order, batches of similar lengths together.

    Eight batches are drawn at random, sorted by length, cut, and shuffled:
    little padding, and still several templates in every batch. (Sorting
    thousands of rows at once fills a batch with one template, and the model
    forgets the others: it was tried, and it learned next to nothing.)
    """
    rows = list(stream(recipe, tokenizer, seed=seed, count=count))
    rng = random.Random(seed)
    ordered: list[Example] = []
    size = recipe.batch_size
    for start in range(0, len(rows), 8 * size):
        window = rows[start : start + 8 * size]
        window.sort(key=lambda row: len(row["input_ids"]))
        cuts = range(0, len(window), size)
        batches = [window[cut : cut + size] for cut in cuts]
        rng.shuffle(batches)
        ordered += [row for batch in batches for row in batch]
    return Dataset.from_list(ordered)


def train(recipe: Recipe, *, seed: int, examples: int | None = None) -> Path:
    """Train one mini model, or continue where a killed run stopped."""
    set_seed(seed)
    tokenizer = save_tokenizer(recipe, seed)
    model = recipe.build()
    count = examples or recipe.examples
    output = WORK / recipe.name
    arguments = TrainingArguments(
        output_dir=str(output),
        per_device_train_batch_size=recipe.batch_size,
        num_train_epochs=1,
        learning_rate=recipe.learning_rate,
        lr_scheduler_type="cosine",
        warmup_steps=100,
        weight_decay=0.01,
        adam_beta2=0.98,
        max_grad_norm=1.0,
        train_sampling_strategy="sequential",
        save_steps=1000,
        save_total_limit=2,
        logging_steps=100,
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
    last = last_checkpoint(output)
    trainer.train(resume_from_checkpoint=str(last) if last else None)
    finish(model, recipe, tokenizer, MODELS / recipe.name)
    shutil.rmtree(output, ignore_errors=True)
    return MODELS / recipe.name


def main(argv: list[str]) -> int:
    """`python3 -m helpers minilab`."""
    parser = command_parser("minilab", __doc__)
    parser.add_argument(
        "--only",
        choices=["problems", "cards", *(recipe.name for recipe in RECIPES)],
        help="build this part alone; cards measures the models again",
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
        if options.only in (None, "cards", recipe.name):
            folder = MODELS / recipe.name
            write_card(
                recipe,
                load_teacher(PROFILES["mini"], str(folder)),
                folder,
                seed=options.seed,
                splits={
                    "test": load_problems("mini", "test"),
                    "held-out templates": load_problems("mini", "held_out"),
                },
                about="Held-out templates are five kinds of problems that no "
                "mini model was trained on.",
            )
    return 0
