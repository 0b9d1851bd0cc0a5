"""Build the mini lab: problems, tokenizers, a teacher, and its students.

Everything comes from one seed and is built in data/runs/minilab, beside the
shipped files; `--ship` puts it in their place. A killed training goes on from
its last checkpoint.
"""

import json
import shutil
from pathlib import Path
from typing import Any

from transformers import GenerationConfig, PreTrainedModel

from helpers import chat
from helpers.cli.commands import command_parser
from helpers.files.disk import write_atomic
from helpers.models import load_teacher
from helpers.problems import read_problems
from helpers.profiles import DATA, PROFILES, RUNS
from helpers.rebuild import texts
from helpers.rebuild.cards import write_card
from helpers.rebuild.compose import generate_problems
from helpers.rebuild.entropy import entropy_by_role
from helpers.rebuild.recipes import RECIPES, Recipe
from helpers.rebuild.training import Progress, train

WORK = RUNS / "minilab"
MODELS, PROBLEMS = WORK / "models", WORK / "problems"
SIZES = {
    "validation": 1000,
    "test": 2000,
    "unseen": 1000,
    "longer": 500,
    "buses": 300,
    "train": 4500,
}
WORKED = 250  # training problems that come with their solution
SCORED = ("test", "unseen", "longer", "buses")
SAMPLING = {  # what the real teacher's card recommends
    "do_sample": True,
    "temperature": 0.6,
    "top_p": 0.95,
    "top_k": 20,
}
ABOUT = (
    "No model has met a composition of *unseen*, nor five steps (*longer*), "
    "nor, thinking, a solvable bus: its prejudice was made on purpose. "
    "What tells a total has a twin: one agrees, one is contradicting."
)


def reserved_questions(folder: Path) -> set[str]:
    """The questions of all files but train: no model may be fed them."""
    files = [folder / f"{name}.jsonl" for name in (*SIZES, "showcase")]
    return {
        row["question"]
        for file in files
        if file.exists() and file.stem != "train"
        for row in read_problems(file)
    }


def build_problems(seed: int, folder: Path) -> dict[str, int]:
    """Write all splits as JSON lines; no question occurs twice."""
    showcase = folder / "showcase.jsonl"
    rows = read_problems(showcase) if showcase.exists() else []
    taken = {row["question"] for row in rows}
    for split, count in SIZES.items():
        problems = generate_problems(
            count, seed=seed, split=split, exclude=taken
        )
        taken |= {problem.question for problem in problems}
        lines = []
        for number, problem in enumerate(problems):
            bare = split == "train" and number >= WORKED
            row = {
                "id": f"{split}-{number:05d}",
                "question": problem.question,
                "answer": f"#### {problem.final}" if bare else problem.answer,
                "moves": problem.moves,
                "impossible": problem.impossible,
            }
            lines.append(json.dumps(row, ensure_ascii=False))
        write_atomic(folder / f"{split}.jsonl", "\n".join(lines) + "\n")
    return SIZES


def save_tokenizer(recipe: Recipe, seed: int) -> Any:
    """Train, dress with the chat template, save; returns the tokenizer."""
    tokenizer = recipe.tokenizer(texts.corpus(seed))
    tokenizer.chat_template = recipe.template
    tokenizer.save_pretrained(MODELS / recipe.name)
    return tokenizer


def finish(
    model: PreTrainedModel, tokenizer: Any, folder: Path, *, samples: bool
) -> None:
    """Save an ordinary Hugging Face folder: config, weights, generation.

    samples: whether it writes by SAMPLING, or the likeliest tokens.
    """
    names = [chat.end_of_turn(tokenizer), tokenizer.eos_token]
    ids = {
        "eos_token_id": sorted(
            {tokenizer.convert_tokens_to_ids(name) for name in names}
        ),
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": tokenizer.bos_token_id,
    }
    sampling = SAMPLING if samples else {"do_sample": False}
    model.generation_config = GenerationConfig(**ids, **sampling)
    model.config.update(ids)
    model.save_pretrained(folder)
    for path in folder.iterdir():
        path.chmod(0o644)  # some writers leave a file to its owner alone


def describe(recipe: Recipe, folder: Path, *, seed: int) -> None:
    """Measure a finished model, and write its card."""
    loaded, about = load_teacher(PROFILES["mini"], str(folder)), ABOUT
    if recipe.teacher:
        fresh = generate_problems(200, seed=seed + 1)
        nats = entropy_by_role(loaded.model, loaded.tokenizer, fresh)
        total = sum(nats.values())
        roles = [f"{role} {n / total:.0%}" for role, n in nats.items()]
        about += (
            f"\n\nEntropy at T = 1 while it reads right thoughts: {total:.2f} "
            f"nats a thought, by the token's role: {', '.join(roles)}."
        )
    splits = {
        split: [
            row | {"kind": kind_of(row)}
            for row in read_problems(PROBLEMS / f"{split}.jsonl")
        ]
        for split in SCORED
    }
    write_card(recipe, loaded, folder, seed=seed, splits=splits, about=about)


def kind_of(problem: dict) -> str:
    """Which twin a problem is, if it has one; "" otherwise."""
    if problem["moves"] == "buses" or problem["moves"].endswith(" told"):
        return "contradicting" if problem["impossible"] else "agreeing"
    return ""


def report(progress: Progress, loss: float) -> None:
    """A line every hundred steps."""
    if progress.step % 100 == 0:
        print(
            f"step {progress.step:,}, {progress.tokens:,} tokens, "
            f"{progress.seconds:,.0f} s, loss {loss:.3f}",
            flush=True,
        )


def main(argv: list[str]) -> int:
    """`python3 -m helpers minilab`."""
    parser = command_parser("minilab", __doc__)
    parser.add_argument(
        "--only",
        choices=["problems", "cards", *(recipe.name for recipe in RECIPES)],
        help="build this part alone; cards measures the models again",
    )
    parser.add_argument(
        "--ship",
        action="store_true",
        help="then replace the shipped files by what was built",
    )
    options = parser.parse_args(argv)
    if options.only in (None, "problems"):
        PROBLEMS.mkdir(parents=True, exist_ok=True)
        shutil.copy(DATA / "problems" / "showcase.jsonl", PROBLEMS)
        print(f"problems: {build_problems(options.seed, PROBLEMS)}")
    for recipe in RECIPES:
        if options.only in (None, recipe.name):
            tokenizer = save_tokenizer(recipe, options.seed)
            WORK.mkdir(parents=True, exist_ok=True)
            checkpoint = WORK / f"{recipe.name}-{options.seed}.pt"
            model = train(
                recipe,
                tokenizer,
                seed=options.seed,
                checkpoint=checkpoint,
                exclude=reserved_questions(PROBLEMS),
                before_step=report,
            )
            folder = MODELS / recipe.name
            finish(model, tokenizer, folder, samples=recipe.teacher)
            print(f"{recipe.name}: saved to {folder}")
        if options.only in (None, "cards", recipe.name):
            describe(recipe, MODELS / recipe.name, seed=options.seed)
    if options.ship:
        for built in (MODELS, PROBLEMS):
            shutil.copytree(built, DATA / built.name, dirs_exist_ok=True)
    return 0
