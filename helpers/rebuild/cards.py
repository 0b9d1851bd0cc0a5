"""Model cards of the mini models: how they were made, what they score."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from helpers.evaluate import evaluate, format_accuracy
from helpers.models import load_teacher, parameter_counts
from helpers.problems import load_problems
from helpers.profiles import PROFILES, write_atomic
from helpers.rebuild.models import Recipe

FORMS = {
    "thinking": "questions in the chat format, answered with a worked "
    "`<think>...</think>` and a final sentence",
    "at_once": "questions in the chat format, answered at once",
    "prose": "questions followed by a worked solution in running text, never "
    "in the chat format",
    "sums": "lines of arithmetic",
    "pages": "everyday sentences and markup",
}
CARD = """\
---
license: mit
library_name: transformers
pipeline_tag: text-generation
---
# {name}

A toy language model of the real `{architecture}` architecture, made for a
course on distillation. It solves word problems of the mini lab and knows
nothing else: use it to learn, not to calculate.

| | |
|---|---|
| parameters | {parameters:,} ({megabytes:.1f} MB in float32) |
| layers, width, vocabulary | {layers}, {hidden}, {vocabulary} |
| trained on | {examples:,} generated examples, one epoch |
| optimizer | AdamW, batch {batch}, cosine from {rate} |
| rebuild | `python3 -m helpers minilab --only {name} --seed {seed}` |

What it was fed, by share of the examples; questions carry no loss, and none
of them is in the validation, test or held-out file:

{mix}

## Scores

Greedy, at most {limit} new tokens, 95% Wilson intervals.

{scores}

*Held-out templates* are five kinds of problems that no mini model was trained
on. *Forced* means that the answer is made to begin with `<think>`.
"""


def score_lines(recipe: Recipe, folder: Path) -> str:
    """Accuracy on test and held-out problems, one line a measurement."""
    profile = replace(PROFILES["mini"], teacher=str(folder))
    loaded = load_teacher(profile)
    thinks = "thinking" in recipe.mix
    modes = (
        {"": "free"} if thinks else {", at once": "free", ", forced": "think"}
    )
    lines = []
    for split in ("test", "held_out"):
        problems = load_problems("mini", split)
        for label, mode in modes.items():
            done = evaluate(loaded, problems, profile=profile, mode=mode)
            name = split.replace("held_out", "held-out templates")
            lines.append(f"- {name}{label}: {done.score}")
            if thinks:
                closed = format_accuracy(done.closed, len(problems))
                lines.append(f"- {name}, thought closed: {closed}")
    return "\n".join(lines)


def write_card(recipe: Recipe, folder: Path, *, seed: int) -> Path:
    """Measure a finished model and write its README.md."""
    loaded = load_teacher(replace(PROFILES["mini"], teacher=str(folder)))
    config = loaded.model.config
    total = parameter_counts(loaded.model)["total"]
    tokens = len(loaded.tokenizer)
    mix = "\n".join(
        f"- {share:.0%} {FORMS[form]}" for form, share in recipe.mix.items()
    )
    card = CARD.format(
        name=recipe.name,
        architecture=type(loaded.model).__name__,
        parameters=total,
        megabytes=total * 4 / 1e6,
        layers=config.num_hidden_layers,
        hidden=config.hidden_size,
        vocabulary=f"{config.vocab_size} rows for {tokens} tokens",
        examples=recipe.examples,
        batch=recipe.batch_size,
        rate=recipe.learning_rate,
        seed=seed,
        mix=mix,
        limit=PROFILES["mini"].max_new_tokens,
        scores=score_lines(recipe, folder),
    )
    return write_atomic(folder / "README.md", card)
