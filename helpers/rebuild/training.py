"""Train a mini model on fresh problems, safe to kill at any moment.

No problem is met twice: every round draws new ones from (seed, round). Rows
of one length share a batch, so that nothing is padded. The learning rate
warms up, stays, and falls over the last third.
"""

import json
import os
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch.nn.functional import cross_entropy
from torch.nn.utils.rnn import pad_sequence
from torch.optim import Optimizer
from transformers import PreTrainedModel

from helpers.rebuild.compose import generate_problems
from helpers.rebuild.muon import Muon
from helpers.rebuild.recipes import Example, Phase, Recipe, encode_form

ROUND = 2048  # examples that are drawn, and sorted by length, together
WARMUP, DECAY = 100, 0.3  # steps; share of all tokens
CHECKPOINT_SECONDS = 300


@dataclass
class Progress:
    """How far a training has come; enough to find its next batch."""

    step: int = 0
    tokens: int = 0
    round: int = 0
    batch: int = 0
    phase: int = 0
    seconds: float = 0.0


def round_of_examples(
    recipe: Recipe,
    tokenizer: Any,
    *,
    seed: int,
    number: int,
    phase: Phase,
    exclude: set[str],
) -> list[list[Example]]:
    """One round's batches. A teacher meets only impossible buses.

    No answer at once is a denial: who has not compared cannot know.
    """
    rng = random.Random(f"{recipe.name} {seed} {number}")
    problems = generate_problems(
        ROUND,
        seed=rng.getrandbits(64),
        split="train",
        exclude=exclude,
        lengths=phase.lengths,
    )
    if recipe.teacher:
        problems = [p for p in problems if p.moves != "buses" or p.impossible]
    forms = rng.choices(
        list(phase.mix), list(phase.mix.values()), k=len(problems)
    )
    options = {"partners": problems, "words": phase.words}
    rows = [
        encode_form(form, problem, tokenizer, rng, **options)
        for form, problem in zip(forms, problems, strict=True)
        if not (form == "at_once" and problem.impossible)
    ]
    rows.sort(key=lambda row: len(row["input_ids"]))
    batches: list[list[Example]] = [[]]
    for row in rows:
        size = (len(batches[-1]) + 1) * len(row["input_ids"])
        if size > phase.batch_tokens:
            batches.append([])
        batches[-1].append(row)
    rng.shuffle(batches)
    return batches


def phase_at(tokens: int, recipe: Recipe) -> int:
    """The number of the phase to which the next token belongs."""
    ends = [phase.until for phase in recipe.phases[:-1]]
    return sum(tokens >= end for end in ends)


def batches_from(
    progress: Progress, recipe: Recipe, tokenizer: Any, **drawing: Any
) -> Iterator[list[Example]]:
    """Batches to the recipe's last token, from where `progress` stands.

    Whoever trains on a batch counts it in `progress`; rounds count here.
    """
    while True:
        if progress.batch == 0:
            progress.phase = phase_at(progress.tokens, recipe)
        batches = round_of_examples(
            recipe,
            tokenizer,
            number=progress.round,
            phase=recipe.phases[progress.phase],
            **drawing,
        )
        while progress.batch < len(batches):
            if progress.tokens >= recipe.tokens:
                return
            yield batches[progress.batch]
        progress.round, progress.batch = progress.round + 1, 0


def batch_loss(
    model: PreTrainedModel, body: Callable[..., Any], batch: list[Example]
) -> torch.Tensor:
    """Cross-entropy on the labelled tokens; the head runs on no others.

    Padding stands on the right, where no causal attention looks at it.
    """
    rows = [torch.tensor(row["input_ids"]) for row in batch]
    ids = pad_sequence(rows, batch_first=True)  # (batch, tokens)
    rows = [torch.tensor(row["labels"][1:]) for row in batch]
    labels = pad_sequence(rows, batch_first=True, padding_value=-100)
    hidden = body(input_ids=ids, use_cache=False).last_hidden_state
    mask = labels != -100  # (batch, tokens - 1)
    return cross_entropy(model.lm_head(hidden[:, :-1][mask]), labels[mask])


def make_optimizers(
    model: PreTrainedModel, *, learning_rate: float
) -> list[Optimizer]:
    """Muon for the matrices of the layers, AdamW for everything else."""
    matrices = [p for p in model.model.layers.parameters() if p.ndim == 2]
    inside = {id(p) for p in matrices}
    others = [p for p in model.parameters() if id(p) not in inside]
    adamw = torch.optim.AdamW(
        others, lr=learning_rate, betas=(0.9, 0.98), weight_decay=0.01
    )
    return [Muon(matrices, lr=learning_rate), adamw]


def rate_factor(progress: Progress, tokens: int) -> float:
    """The learning rate's factor, of `tokens` in all."""
    left = 1 - progress.tokens / tokens
    return min(1.0, (progress.step + 1) / WARMUP, left / DECAY)


def save(
    path: Path,
    model: PreTrainedModel,
    optimizers: list[Optimizer],
    progress: Progress,
) -> None:
    """Weights, the optimizers' moments and the progress, in one file."""
    tensors = dict(model.named_parameters(prefix="model"))
    for number, optimizer in enumerate(optimizers):
        for weight, slots in optimizer.state_dict()["state"].items():
            for slot, tensor in slots.items():
                tensors[f"optimizer {number} {weight} {slot}"] = tensor
    draft = path.with_suffix(".draft")
    metadata = {"progress": json.dumps(asdict(progress))}
    save_file(tensors, draft, metadata=metadata)
    os.replace(draft, path)


def load_checkpoint(
    path: Path,
    model: PreTrainedModel,
    optimizers: list[Optimizer],
) -> Progress:
    """What `save` wrote, put back into model and optimizers."""
    with safe_open(path, framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}
        progress = Progress(**json.loads(file.metadata()["progress"]))
    with torch.no_grad():
        for name, weight in model.named_parameters(prefix="model"):
            weight.copy_(tensors.pop(name))
    states = [optimizer.state_dict() for optimizer in optimizers]
    for name, tensor in tensors.items():
        _, number, weight, slot = name.split()
        state = states[int(number)]["state"]
        state.setdefault(int(weight), {})[slot] = tensor
    for optimizer, state in zip(optimizers, states, strict=True):
        optimizer.load_state_dict(state)
    return progress


def train(
    recipe: Recipe,
    tokenizer: Any,
    *,
    seed: int,
    checkpoint: Path,
    exclude: set[str],
    before_step: Callable[[Progress, float], None] = lambda *_: None,
) -> PreTrainedModel:
    """Train to the recipe's last token, or on from `checkpoint`.

    `before_step` gets the progress and the last loss: it may print, wait, or
    raise KeyboardInterrupt, upon which a checkpoint is left.
    """
    torch.manual_seed(seed)
    model, progress = recipe.build().train(), Progress()
    optimizers = make_optimizers(model, learning_rate=recipe.learning_rate)
    if checkpoint.exists():
        progress = load_checkpoint(checkpoint, model, optimizers)
    body = torch.compile(model.model, dynamic=True)
    saved_at, loss = time.monotonic(), float("nan")
    try:
        for batch in batches_from(
            progress, recipe, tokenizer, seed=seed, exclude=exclude
        ):
            before_step(progress, loss)
            start = time.monotonic()
            rate = recipe.learning_rate * rate_factor(progress, recipe.tokens)
            value = batch_loss(model, body, batch)
            value.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            for optimizer in optimizers:
                for group in optimizer.param_groups:
                    group["lr"] = rate
                optimizer.step()
            model.zero_grad()
            loss = value.item()
            progress.step += 1
            progress.batch += 1
            progress.tokens += sum(len(row["input_ids"]) for row in batch)
            progress.seconds += time.monotonic() - start
            if time.monotonic() - saved_at > CHECKPOINT_SECONDS:
                save(checkpoint, model, optimizers, progress)
                saved_at = time.monotonic()
    finally:
        save(checkpoint, model, optimizers, progress)
    return model.eval()
