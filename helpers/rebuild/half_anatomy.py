"""What half a Gemma is before and after its repair: measured, not trained."""

import statistics
import time
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from helpers.features import cka_grid
from helpers.rebuild.half_gemma import Lab, ask, held_out
from helpers.rebuild.pruning import (
    RULES,
    kept_blocks,
    layer_influence,
    prune_layers,
)

PROMPTS = (
    "Question: Ann buys 3 boxes of 12 pencils and gives away 7 pencils. How "
    "many pencils are left?\nAnswer:",
    'The "for" statement is used to iterate over the elements of',
    "The capital of France is",
)
NEW_TOKENS = 24


@torch.no_grad()
def loss_on(model: Any, rows: Sequence[Tensor]) -> float:
    """Cross-entropy in nats per token of some texts, token ids each."""
    total = tokens = 0.0
    for ids in rows:
        logits = ask(model, ids[None]).logits[0, :-1].float()
        targets = ids[1:].to(logits.device)
        total += functional.cross_entropy(logits, targets, reduction="sum")
        tokens += len(ids) - 1
    return float(total / tokens)


def losses_by_rule(
    model: Any, influence: Sequence[float], rows: Sequence[Tensor]
) -> dict[str, list[tuple[int, float]]]:
    """For each rule of `pruning`: (blocks dropped, loss), untrained."""
    start, total = (0, loss_on(model, rows)), len(influence)
    losses = {rule: [start] for rule in RULES}
    for rule, points in losses.items():
        for dropped in range(1, total // 2 + 1, 2):
            keep = kept_blocks(rule, total, dropped, influence)
            loss = loss_on(prune_layers(model, keep), rows)
            points.append((dropped, round(loss, 3)))
    return losses


@torch.no_grad()
def speeds(models: dict[str, Any], rounds: int = 3) -> dict[str, list[float]]:
    """Tokens a second, reading 512 and writing 24: medians, interleaved."""
    ids = torch.arange(512)[None] % 100 + 4  # any tokens will do
    taken: dict[str, list[list[float]]] = {name: [] for name in models}
    for _ in range(rounds):
        for name, model in models.items():
            started = time.perf_counter()
            ask(model, ids).logits[0, -1, 0].item()  # waits for a GPU
            middle = time.perf_counter()
            model.generate(
                input_ids=ids[:, :32].to(model.device),
                min_new_tokens=NEW_TOKENS,
                max_new_tokens=NEW_TOKENS,
                do_sample=False,
            )
            ended = time.perf_counter()
            rate = [512 / (middle - started), NEW_TOKENS / (ended - middle)]
            taken[name].append(rate)
    return {
        name: [
            round(statistics.median(one), 1)
            for one in zip(*rates, strict=True)
        ]
        for name, rates in taken.items()
    }


@torch.no_grad()
def continued(model: Any, tokenizer: Any) -> list[str]:
    """What the model writes after each of PROMPTS, greedily."""
    texts = []
    for prompt in PROMPTS:
        ids = tokenizer(prompt, return_tensors="pt")["input_ids"]
        made = model.generate(
            input_ids=ids.to(model.device),
            max_new_tokens=NEW_TOKENS,
            do_sample=False,
        )
        texts.append(tokenizer.decode(made[0, ids.shape[1] :]))
    return texts


@torch.no_grad()
def states_of(model: Any, rows: Sequence[Tensor]) -> list[Tensor]:
    """Every layer's states (positions, width) on some texts."""
    told = [ask(model, ids[None], states=True).hidden_states for ids in rows]
    return [
        torch.cat(layer, dim=1)[0].float() for layer in zip(*told, strict=True)
    ]


def looked_into(half: Any, lab: Lab) -> dict[str, Any]:
    """What a repaired half writes, and its layers beside the teacher's."""
    rows = sample_of(lab)
    grid = cka_grid(*(states_of(model, rows) for model in (half, lab.teacher)))
    return {
        "samples": continued(half, lab.tokenizer),
        "cka": grid.cpu().numpy().round(3).tolist(),
    }


def sample_of(lab: Lab) -> list[Tensor]:
    """A few validation texts of both kinds."""
    texts = held_out(lab.tokenizer, lab.texts["validation"], share=8)
    return [ids for _, ids in texts]


def anatomy(lab: Lab) -> dict[str, Any]:
    """All of this for the half before any repair, and for the teacher."""
    rows = sample_of(lab)
    influence = layer_influence(lab.teacher, [ids[None] for ids in rows])
    half = prune_layers(lab.teacher, lab.keep)
    return {
        "keep": lab.keep,
        "tokens_kept": len(lab.kept_tokens),
        "influence": [round(turn, 4) for turn in influence],
        "rules": losses_by_rule(lab.teacher, influence, rows),
        "speeds": speeds({"teacher": lab.teacher, "half": half}),
        "teacher_samples": continued(lab.teacher, lab.tokenizer),
        **looked_into(half, lab),
    }
