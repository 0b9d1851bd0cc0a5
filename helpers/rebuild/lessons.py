"""One student of notebook 08, taught by one signal.

The teacher is frozen: all that it has to say about the rows is computed
before the first step, so the loop is the same for every signal.
"""

import random
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import torch
from torch.nn.utils import clip_grad_norm_
from torch.nn.utils.rnn import pad_sequence

from helpers import CourseError
from helpers.distill import pair_rows
from helpers.features import Projectors, layer_map
from helpers.logit_cache import PairCollator
from helpers.models import Loaded, load_teacher
from helpers.on_policy import own_rows
from helpers.problems import load_problems
from helpers.profiles import RUNS, Profile
from helpers.rebuild.decoding import decode
from helpers.rebuild.experiments import ALL_TRACES, MAKE_ALL, gold_rows
from helpers.rebuild.signals import (
    SIGNALS,
    Signal,
    pull,
    signal_loss,
    states_loss,
    target,
)
from helpers.sft import encode_traces
from helpers.traces import filter_traces, generate_traces, load_traces

BATCH = 16
WORK = RUNS / "mini" / "compare"
SHIPPED = 250  # a larger budget draws from more traces than ship
OWN = SIGNALS["reverse"]  # how own text is judged


@dataclass(frozen=True)
class Setting:
    """What is tuned: rate, rows read, and label smoothing."""

    rate: float
    reads: int
    smoothing: float = 0.0


@cache
def teacher_of(profile: Profile) -> Loaded:
    """The teacher, once in a process."""
    return load_teacher(profile)


def sampled(profile: Profile, name: str, problems: list[dict]) -> list[dict]:
    """The teacher's texts at T = 1 with nothing cut off, kept in data/runs.

    Wrong ones stay, those without an end go.
    """
    free = replace(profile, sampling_temperature=1.0, top_p=1.0, top_k=0)
    teacher = teacher_of(profile)
    rows = generate_traces(
        problems, teacher.model, teacher.tokenizer, WORK / f"{name}.jsonl",
        profile=free, progress=False,
    )  # fmt: skip
    return filter_traces(rows, correct_only=False)[0]


def rows_of(
    signal: Signal, profile: Profile, budget: int, seed: int
) -> list[dict]:
    """The rows of a run; the same questions for every signal but gold.

    Raises CourseError where there are not so many.
    """
    draw = random.Random(seed)
    if signal.rows == "gold":
        return draw.sample(gold_rows(profile, SHIPPED), budget)
    path = profile.traces_path
    if budget > SHIPPED:
        path = ALL_TRACES
        if not path.exists():
            raise CourseError(f"this budget needs more traces: `{MAKE_ALL}`")
    traces, _ = filter_traces(load_traces(path))
    chosen = draw.sample(traces, budget)
    if signal.rows == "others":
        texts = [row["qwen3_answer"] for row in chosen]
        pairs = zip(chosen, texts[1:] + texts[:1], strict=True)
        return [row | {"qwen3_answer": text} for row, text in pairs]
    if signal.rows == "sampled":
        problems = load_problems(profile.problems, "train")
        texts = sampled(profile, "sampled", problems)
        at = {row["question"]: row for row in texts}
        free = [at[q] for row in chosen if (q := row["question"]) in at]
        spare = [row for row in texts if row not in free]
        return free + draw.sample(spare, budget - len(free))
    return chosen


@torch.no_grad()
def listen(
    rows: list[dict],
    signal: Signal,
    student: Any,
    profile: Profile,
    seed: int,
) -> list[dict[str, Any]]:
    """Rows as `hear` gives them."""
    teacher, options = teacher_of(profile), {"max_length": profile.max_length}
    if signal.rows == "gold":  # the teacher has no part in these
        encoded, _ = encode_traces(rows, student.tokenizer, **options)
    else:
        readers = (student.tokenizer, teacher.tokenizer)
        encoded = pair_rows(rows, *readers, **options)
    generator = torch.Generator().manual_seed(seed)
    return [hear(row, signal, student, profile, generator) for row in encoded]


@torch.no_grad()
def hear(
    row: dict,
    signal: Signal,
    student: Any,
    profile: Profile,
    generator: torch.Generator,
) -> dict[str, Any]:
    """A row as tensors, with all that the teacher has to say about it.

    ids and labels (tokens,); soft (trained positions,); taught, of the soft
    ones (`target`) or None; states: {pair of layers: (tokens - 1, width)};
    and the row itself.
    """
    ids, labels = (torch.tensor(row[n]) for n in ("input_ids", "labels"))
    trained = labels[1:] != -100
    start = row.get("soft_start", len(ids))
    soft = torch.arange(1, len(ids))[trained] >= start
    one = {"ids": ids, "labels": labels, "soft": soft, "taught": None}
    if signal.logits or signal.states:
        teacher = teacher_of(profile)
        out = teacher.model(ids[None], output_hidden_states=True)
        size = len(student.tokenizer)
        logits = out.logits[0, :-1, :size][trained][soft]
        if signal.logits:
            one["taught"] = target(signal, logits, generator)
        one["states"] = {
            (ours, theirs): out.hidden_states[theirs][0, :-1]
            for ours, theirs in layers(signal, student.model, teacher)
        }
    return one | {"row": row}


def reads_own(signal: Signal, step: int, steps: int) -> bool:
    """Whether the student's own text is read at this step, from 0."""
    if signal.late:
        return step >= steps - int(steps * signal.own)
    return int((step + 1) * signal.own) > int(step * signal.own)


def own_text(
    batch: list[dict], student: Loaded, profile: Profile
) -> list[dict]:
    """The batch's questions with what the student answers now, heard.

    It writes at T = 1, with its adapters merged in a copy, which is faster.
    """
    merged = deepcopy(student.model).merge_and_unload()
    asked = PairCollator(0)([row["row"] for row in batch])
    sampling = replace(profile.greedy, temperature=1.0)
    rows = own_rows(asked, merged, student.tokenizer, sampling, decode)
    lots = torch.Generator()  # nothing is drawn
    return [hear(row, OWN, student, profile, lots) for row in rows]


def layers(signal: Signal, student: Any, teacher: Loaded) -> Any:
    """Which states are imitated; relations only of the last layer."""
    if not signal.states:
        return ()
    kind = "last" if signal.states == "relation" else "even"
    depths = [m.config.num_hidden_layers for m in (student, teacher.model)]
    return layer_map(kind, *depths)


def batches(rows: list, reads: int, seed: int) -> Iterator[list]:
    """`reads` rows in batches, in a new order each time round."""
    shuffle, order = random.Random(seed), []
    for _ in range(reads // BATCH):
        while len(order) < BATCH:
            order += shuffle.sample(rows, len(rows))
        yield order[:BATCH]
        del order[:BATCH]


def ask(model: Any, batch: list[dict], **options: Any) -> tuple[Any, ...]:
    """Outputs, and labels and mask of the next token, for padded rows."""
    ids, labels, real = (
        pad_sequence(parts, batch_first=True, padding_value=empty)
        for parts, empty in (
            ([row["ids"] for row in batch], 0),
            ([row["labels"] for row in batch], -100),
            ([torch.ones_like(row["ids"]) for row in batch], 0),
        )
    )
    out = model(input_ids=ids, attention_mask=real, use_cache=False, **options)
    return out, labels[:, 1:], labels[:, 1:] != -100


def learn(
    student: Loaded,
    rows: list[dict],
    signal: Signal,
    *,
    profile: Profile,
    setting: Setting,
    seed: int,
) -> None:
    """Train the adapters of `student`; rows: of `listen`."""
    from transformers import get_cosine_schedule_with_warmup

    model, size = student.model.train(), len(student.tokenizer)
    weights = [p for p in model.parameters() if p.requires_grad]
    projectors, maps = None, []
    if signal.states == "cosine":
        shapes = {pair: x.shape[-1] for pair, x in rows[0]["states"].items()}
        width = model.config.hidden_size
        projectors = Projectors(
            tuple(shapes), width, max(shapes.values()), seed=seed
        )
        maps = list(projectors.parameters())
    trained = [*weights, *maps]
    optimizer = torch.optim.AdamW(trained, setting.rate, weight_decay=0.0)
    steps = setting.reads // BATCH
    schedule = get_cosine_schedule_with_warmup(
        optimizer, max(1, steps // 20), steps
    )
    for step, batch in enumerate(batches(rows, setting.reads, seed)):
        told, own = signal, reads_own(signal, step, steps)
        if own:  # `reverse` has the same loss, on the teacher's text
            told, batch = OWN, own_text(batch, student, profile)
        elif step < int(steps * signal.warm):
            told = SIGNALS["text"]
        out, labels, mask = ask(
            model, batch, output_hidden_states=bool(signal.states)
        )
        taught = None
        if told.logits:
            taught = torch.cat([row["taught"] for row in batch])
        soft = torch.cat([row["soft"] for row in batch])
        loss = signal_loss(
            told, out.logits[:, :-1, :size][mask].float(), labels[mask],
            soft, taught, setting.smoothing,
        )  # fmt: skip
        if not torch.isfinite(loss):
            raise CourseError(
                f"the loss is {loss}: lower the rate {setting.rate}"
            )
        if signal.states:
            theirs = {
                pair: pad_sequence(
                    [row["states"][pair] for row in batch], batch_first=True
                )
                for pair in rows[0]["states"]
            }
            more = states_loss(
                signal, out.hidden_states, theirs, mask, projectors
            )
            pull(loss, more, weights, maps, signal.dose)
        else:
            loss.backward()
        clip_grad_norm_(weights, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
    model.eval()
