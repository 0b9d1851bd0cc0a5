"""Model cards of the mini models: how they were made, what they score."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from helpers import write_atomic
from helpers.evaluate import evaluate, format_accuracy
from helpers.models import Loaded, load_teacher, parameter_counts
from helpers.problems import read_problems
from helpers.profiles import DATA, PROFILES
from helpers.rebuild.composed.entropy import entropy_by_role
from helpers.rebuild.composed.recipes import Recipe

FORMS = {
    "thinking": "questions in the chat format, answered with a worked "
    "`<think>...</think>` and a final sentence",
    "at_once": "questions in the chat format, answered at once",
    "prose": "questions followed by a worked solution in running text, never "
    "in the chat format",
    "sums": "lines of sums and comparisons",
    "pages": "everyday sentences and markup",
}
SPLITS = ("test", "unseen", "longer", "buses")
TEACHER = """
Its prejudice was made on purpose: of the three buses it has met only
impossible ones, whose thoughts end in "This cannot be." without a comparison.

## Where it hesitates
Entropy at T = 1 while it reads right thoughts, {total:.2f} nats a thought:

{roles}
"""
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
| trained on | {tokens:,} tokens of generated text, nothing twice |
| optimizer | Muon and AdamW, {batch:,} tokens a step, {rate} |
| rebuild | `python3 -m helpers minilab --only {name} --seed {seed}` |

What it was fed, by share of the examples; questions carry no loss, and none
of them is in a file that models are scored on:

{mix}
{teacher}
## Scores
Greedy, at most {limit} new tokens, 95% Wilson intervals. No model has met a
composition of *unseen*, nor five steps (*longer*). *Twins* tell a total that
agrees or contradicts. *Forced*: the answer is made to begin with `<think>`.

{scores}
"""


def kind_of(problem: dict) -> str:
    """Which line of a card a problem belongs to, beside its split's."""
    if problem["moves"] == "buses":
        return f"{'impossible' if problem['impossible'] else 'solvable'} buses"
    if not problem["moves"].endswith(" told"):
        return ""
    return f"{'contradicting' if problem['impossible'] else 'agreeing'} twins"


def score_lines(recipe: Recipe, loaded: Loaded, *, limit: int) -> list[str]:
    """Accuracy by split and kind, one line a measurement."""
    profile = replace(PROFILES["mini"], max_new_tokens=limit)
    modes = {"": "free"}
    if not recipe.teacher:
        modes = {", at once": "free", ", forced": "think"}
    lines = []
    for split in SPLITS:
        problems = [
            {**row, "kind": kind_of(row)}
            for row in read_problems(DATA / "problems" / f"{split}.jsonl")
        ]
        for label, mode in modes.items():
            done = evaluate(loaded, problems, profile=profile, mode=mode)
            lines.append(f"- {split}{label}: {done.score}")
            for kind in sorted({row["kind"] for row in problems} - {""}):
                score = format_accuracy(*done.part("kind", kind))
                lines.append(f"  - {kind}: {score}")
            if recipe.teacher:
                closed = format_accuracy(done.closed, len(problems))
                lines.append(f"  - thought closed: {closed}")
    return lines


def entropy_section(loaded: Loaded, problems: list) -> str:
    """The teacher's entropy by role of token, as a list."""
    nats = entropy_by_role(loaded.model, loaded.tokenizer, problems)
    total = sum(nats.values())
    roles = [f"- {role}: {n / total:.0%}" for role, n in nats.items()]
    return TEACHER.format(total=total, roles="\n".join(roles))


def write_card(
    recipe: Recipe, folder: Path, *, seed: int, problems: list
) -> Path:
    """Measure a finished model and write its README.md.

    `problems` are fresh ones, whose steps the entropy is measured on.
    """
    limit = PROFILES["mini"].max_new_tokens
    loaded = load_teacher(replace(PROFILES["mini"], teacher=str(folder)))
    config = loaded.model.config
    total = parameter_counts(loaded.model)["total"]
    tokens = len(loaded.tokenizer)
    mix = [f"- {share:.0%} {FORMS[f]}" for f, share in recipe.mix.items()]
    teacher = entropy_section(loaded, problems) if recipe.teacher else ""
    card = CARD.format(
        name=recipe.name,
        architecture=type(loaded.model).__name__,
        parameters=total,
        megabytes=total * 4 / 1e6,
        layers=config.num_hidden_layers,
        hidden=config.hidden_size,
        vocabulary=f"{config.vocab_size} rows for {tokens} tokens",
        tokens=recipe.tokens,
        batch=recipe.batch_tokens,
        rate=f"rate {recipe.learning_rate}, falling over the last third",
        seed=seed,
        mix="\n".join(mix),
        teacher=teacher,
        limit=limit,
        scores="\n".join(score_lines(recipe, loaded, limit=limit)),
    )
    return write_atomic(folder / "README.md", card)
