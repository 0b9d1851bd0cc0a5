"""Half of Gemma 3 270M, repaired by eleven lessons: notebook 11's experiment.

`python3 -m helpers half` writes one file for each lesson and seed into
data/results/half_gemma and skips those that are there. Rates are chosen on
validation texts (`--tune`), scores are taken on test texts.
"""

import itertools
import math
import pydoc_data.topics
import random
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from transformers import AutoModelForCausalLM, AutoTokenizer

from helpers import CourseError
from helpers.features import hidden_state_loss
from helpers.losses import kd_loss, topk_kd_loss
from helpers.problems import load_problems
from helpers.profiles import fast_bfloat16
from helpers.rebuild.pruning import (
    kept_blocks,
    layer_influence,
    trim_vocabulary,
)

STEPS, ROWS, WIDTH = 32, 4, 256  # a step reads 1,024 tokens
HELD_OUT = {"gsm8k": 64, "reference": 16}  # texts of a split
LONGEST = 224  # tokens of a held-out text
PIECE = 800  # characters of the language reference in one training text


@dataclass(frozen=True)
class Lesson:
    """What the half is told at every position.

    text, logits: the weights of the cross-entropy with the text's next token
        and of the divergence from the teacher's distribution.
    top_k: how many of the teacher's tokens a cache holds, 0 for all.
    states: the `kind` of `hidden_state_loss`, for all nine layers.
    teacher: plain; tuned on the same texts first; or its weights in nf4.
    """

    text: float = 0.0
    logits: float = 0.0
    temperature: float = 1.0
    top_k: int = 0
    states: str = ""
    teacher: str = "plain"


LESSONS = {
    "text": Lesson(text=1),
    "logits": Lesson(logits=1),
    "logits_t2": Lesson(logits=1, temperature=2),
    "logits_cached": Lesson(logits=1, top_k=16),
    "states": Lesson(states="cosine"),
    "text_states": Lesson(text=1, states="cosine"),
    "text_relations": Lesson(text=1, states="relation"),
    "logits_states": Lesson(logits=1, states="cosine"),
    "tuned_logits": Lesson(logits=1, teacher="tuned"),
    "tuned_logits_states": Lesson(logits=1, states="cosine", teacher="tuned"),
    "nf4_logits_states": Lesson(logits=1, states="cosine", teacher="nf4"),
}


@dataclass(frozen=True)
class Lab:
    """Teacher and tokenizer with the trimmed vocabulary, and the texts.

    texts: split to kind to texts; keep: the blocks of the half.
    """

    teacher: Any
    tokenizer: Any
    texts: dict[str, dict[str, list[str]]]
    keep: list[int]
    kept_tokens: list[int]


def read_texts(problems: str) -> dict[str, dict[str, list[str]]]:
    """GSM8K with its solutions, and the language reference of Python.

    The second lies in every Python (pydoc_data.topics, PSF licence): one
    topic in five is test, one validation. Some topics are parts of others:
    a test topic that a training topic repeats is left out.
    """
    topics = [text for _, text in sorted(pydoc_data.topics.topics.items())]
    train = [text for i, text in enumerate(topics) if i % 5 > 1]
    known = {line for text in train for line in text.splitlines()}
    parts = {
        "train": train,
        "validation": topics[1::5],
        "test": [t for t in topics[::5] if repeated(t, known) < 0.5],
    }
    texts = {}
    for split, reference in parts.items():
        rows = load_problems(problems, split)
        solved = [
            f"Question: {row['question']}\nAnswer: {row['answer']}"
            for row in rows
        ]
        if split == "train":
            reference = [piece for topic in reference for piece in cut(topic)]
        texts[split] = {"gsm8k": solved, "reference": reference}
    return texts


def repeated(topic: str, known: set[str]) -> float:
    """The share of a topic's opening lines that are known."""
    lines = [line for line in topic[:PIECE].splitlines() if line.strip()]
    return sum(line in known for line in lines) / max(1, len(lines))


def cut(topic: str) -> Iterator[str]:
    """Paragraphs together, until they are PIECE characters long."""
    piece = ""
    for paragraph in re.split(r"\n\s*\n", topic):
        piece = f"{piece}\n\n{paragraph}" if piece else paragraph
        if len(piece) >= PIECE:
            yield piece
            piece = ""
    if piece:
        yield piece


def make_lab(folder: str | Path, problems: str) -> Lab:
    """Load, trim the vocabulary to the training texts, choose the blocks."""
    texts = read_texts(problems)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, use_safetensors=True
    ).to("cuda" if torch.cuda.is_available() else "cpu")
    teacher, tokenizer, kept = trim_vocabulary(
        model, tokenizer, itertools.chain(*texts["train"].values())
    )
    sample = [ids for _, ids in held_out(tokenizer, texts["validation"], 8)]
    influence = layer_influence(teacher.eval(), [ids[None] for ids in sample])
    total = len(influence)
    keep = kept_blocks("least influence", total, total // 2, influence)
    return Lab(teacher, tokenizer, texts, keep, kept)


def held_out(
    tokenizer: Any, texts: dict[str, list[str]], share: int = 1
) -> list[tuple[str, Tensor]]:
    """(kind, token ids) of every held-out text, one `share`-th of them."""
    return [
        (kind, tokenizer(text, return_tensors="pt")["input_ids"][0, :LONGEST])
        for kind, count in HELD_OUT.items()
        for text in texts[kind][: count // share]
    ]


def stream(lab: Lab, steps: int, seed: int) -> Iterator[Tensor]:
    """Batches (ROWS, WIDTH) of texts one after the other, in a random order.

    Three of GSM8K, then a piece of the reference; every seed its own.
    """
    generator = random.Random(seed)
    order = {
        kind: itertools.cycle(generator.sample(texts, len(texts)))
        for kind, texts in lab.texts["train"].items()
    }
    turns = itertools.cycle(["gsm8k"] * 3 + ["reference"])
    ids: list[int] = []
    for _ in range(steps):
        while len(ids) < ROWS * WIDTH:
            ids += lab.tokenizer(next(order[next(turns)]))["input_ids"]
        yield torch.tensor(ids[: ROWS * WIDTH]).view(ROWS, WIDTH)
        del ids[: ROWS * WIDTH]


def ask(model: Any, ids: Tensor, *, states: bool = False) -> Any:
    """The model's outputs; it multiplies in bfloat16 where that is fast."""
    kind = model.device.type
    with torch.autocast(kind, torch.bfloat16, enabled=fast_bfloat16(kind)):
        return model(
            input_ids=ids.to(model.device),
            output_hidden_states=states,
            use_cache=False,
        )


def lesson_loss(
    lesson: Lesson, student: Any, taught: Any, ids: Tensor, keep: list[int]
) -> Tensor:
    """The lesson's loss on one batch; taught: of `listen`."""
    ids = ids.to(student.device)
    told = ask(student, ids, states=bool(lesson.states))
    everywhere = torch.ones_like(ids, dtype=torch.bool)
    loss = torch.zeros((), device=ids.device)
    if lesson.text:
        logits = told.logits[:, :-1].float().flatten(0, 1)
        loss = loss + functional.cross_entropy(logits, ids[:, 1:].flatten())
    if lesson.top_k:
        loss = loss + topk_kd_loss(told.logits, *taught, everywhere)
    elif lesson.logits:
        loss = loss + kd_loss(
            told.logits,
            taught.logits,
            everywhere,
            temperature=lesson.temperature,
        )
    if lesson.states:
        for layer, block in enumerate(keep, start=1):
            loss = loss + hidden_state_loss(
                told.hidden_states[layer],
                taught.hidden_states[block + 1],
                everywhere,
                kind=lesson.states,
            )
    return loss


@torch.no_grad()
def listen(lesson: Lesson, teacher: Any, ids: Tensor) -> Any:
    """What the lesson needs of the teacher on a batch: None for text."""
    if lesson.top_k:
        logs = ask(teacher, ids).logits.float().log_softmax(-1)
        top = logs.topk(lesson.top_k)
        return top.indices.int(), top.values.half()
    if lesson.logits or lesson.states:
        return ask(teacher, ids, states=bool(lesson.states))
    return None


def repair(
    student: Any,
    lesson: Lesson,
    batches: list[Tensor],
    *,
    teacher: Any,
    keep: list[int],
    rate: float,
    after_step: Callable[[int], None] = lambda step: None,
) -> float:
    """Train all weights of the half; returns the seconds it took.

    A cache is filled before the first step, and the teacher is not asked
    again. `after_step` is not counted.
    """
    optimizer = torch.optim.AdamW(
        student.parameters(), lr=rate, betas=(0.9, 0.95), weight_decay=0.0
    )
    total, warm_up = len(batches), len(batches) // 16 + 1
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer,
        lambda step: (
            min(1, (step + 1) / warm_up)
            * (1 + math.cos(math.pi * step / total))
            / 2
        ),
    )
    seconds, started = 0.0, time.perf_counter()
    heard = [listen(lesson, teacher, ids) for ids in batches if lesson.top_k]
    for step, ids in enumerate(batches):
        taught = heard[step] if heard else listen(lesson, teacher, ids)
        loss = lesson_loss(lesson, student, taught, ids, keep)
        if not torch.isfinite(loss):
            raise CourseError(
                f"the loss is {loss} at step {step}: lower the rate"
            )
        loss.backward()
        torch.nn.utils.clip_grad_norm_(student.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
        seconds += time.perf_counter() - started
        after_step(step + 1)
        started = time.perf_counter()
    return seconds
