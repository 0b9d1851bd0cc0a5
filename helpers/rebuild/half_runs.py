"""`python3 -m helpers half`: train and score lessons on half of Gemma 3 270M.

One file for each lesson, seed and number of steps in data/results/half_gemma;
what is there is skipped, so that a killed command goes on.
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from datetime import date
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from tqdm.auto import tqdm

from helpers import CourseError
from helpers.cli.commands import command_parser, count
from helpers.cli.fetch import fetch_gemma
from helpers.files.disk import write_atomic
from helpers.generate import peak_memory_mb, reset_peak
from helpers.profiles import RUNS, get_profile, set_seed
from helpers.rebuild.calibration import tenths
from helpers.rebuild.half_anatomy import anatomy, looked_into
from helpers.rebuild.half_gemma import (
    LESSONS,
    STEPS,
    Lab,
    ask,
    held_out,
    make_lab,
    repair,
    stream,
)
from helpers.rebuild.half_results import RESULTS
from helpers.rebuild.pruning import prune_layers
from helpers.results import package_versions

WORK = RUNS / "half_gemma"
RATES = (1e-3, 3e-4, 1e-4, 3e-5)
TUNING_SEED, TUNED_STEPS, TUNED_RATE = 1, 128, 1e-4
BASELINES = ("teacher", "tuned", "nf4")
POINTS = 4  # of a curve, on validation texts
Texts = Sequence[tuple[str, Tensor]]  # of `held_out`


@torch.no_grad()
def opinions(model: Any, texts: Texts) -> Iterator[Tensor]:
    """Log-probabilities (tokens - 1, vocab) of every text, in bfloat16."""
    for _, ids in texts:
        logits = ask(model, ids[None]).logits[0, :-1]
        yield logits.float().log_softmax(dim=-1).bfloat16().cpu()


@torch.no_grad()
def score(
    model: Any, teacher: Iterable[Tensor], texts: Texts
) -> dict[str, Any]:
    """Sums over the predicted tokens of every text, and calibration.

    nll: of the text's next token; kl: KL(teacher || model); agree: where
    both find the same token likeliest. bins: by the probability of the
    likeliest token in tenths: tokens, sum of that probability, right ones.
    teacher: its `opinions` on the same texts.
    """
    sums: dict[str, dict[str, list]] = {}
    bins: Any = 0
    pairs = zip(opinions(model, texts), teacher, strict=True)
    for (kind, ids), (logs, taught) in zip(texts, pairs, strict=True):
        logs, taught, targets = logs.float(), taught.float(), ids[1:]
        sure, guess = logs.exp().max(dim=-1)
        values = {
            "tokens": len(targets),
            "nll": functional.nll_loss(logs, targets, reduction="sum"),
            "kl": (taught.exp() * (taught - logs)).sum(),
            "agree": (guess == taught.argmax(dim=-1)).sum(),
        }
        bins = bins + tenths(sure, guess == targets)
        table = sums.setdefault(kind, {name: [] for name in values})
        for name, value in values.items():
            table[name].append(round(float(value), 3))
    return {"texts": sums, "bins": bins.T.round(3).tolist()}


def mean(scored: dict[str, Any], name: str) -> float:
    """A sum of `score` per token, of all texts."""
    parts = scored["texts"].values()
    total = sum(sum(part["tokens"]) for part in parts)
    return sum(sum(part[name]) for part in parts) / total


def teacher_of(kind: str, lab: Lab) -> Any:
    """As it is; tuned on the texts (made once, kept in data/runs); in nf4."""
    if kind in ("plain", "teacher"):
        return lab.teacher
    if kind == "nf4":
        return in_nf4(lab.teacher)
    place = WORK / f"tuned-{len(lab.kept_tokens)}"
    if not (place / "model.safetensors").exists():
        batches = list(stream(lab, TUNED_STEPS, TUNING_SEED))
        tuned = prune_layers(lab.teacher, range(len(lab.teacher.model.layers)))
        bar = tqdm(total=len(batches), desc="tuning the teacher")
        repair(
            tuned.train(), LESSONS["text"], batches, teacher=None, keep=[],
            rate=TUNED_RATE, after_step=lambda step: bar.update(1),
        )  # fmt: skip
        tuned.save_pretrained(place)
    tuned = type(lab.teacher).from_pretrained(
        place, dtype=torch.float32, use_safetensors=True
    )
    return tuned.to(lab.teacher.device).eval()


def in_nf4(model: Any) -> Any:
    """A copy whose linear weights are what NF4 leaves of them."""
    from bitsandbytes import functional as bnb

    copy = prune_layers(model, range(len(model.model.layers)))
    for name, weight in copy.model.layers.named_parameters():
        if name.endswith("_proj.weight"):
            packed = bnb.quantize_4bit(
                weight.data, quant_type="nf4", compress_statistics=True
            )
            weight.data.copy_(bnb.dequantize_4bit(*packed))
    return copy


def run_lesson(
    name: str, lab: Lab, *, seed: int, steps: int, rate: float, looks: int
) -> tuple[Any, dict[str, Any]]:
    """Train one half; it, and its curve on validation texts."""
    lesson = LESSONS[name]
    set_seed(seed)
    teacher = teacher_of(lesson.teacher, lab)
    half = prune_layers(lab.teacher, lab.keep).train()
    batches = list(stream(lab, steps, seed))
    texts = held_out(lab.tokenizer, lab.texts["validation"], share=4)
    judge = list(opinions(lab.teacher, texts))
    points = {round(steps * (i + 1) / looks) for i in range(looks)}
    curve: list[dict[str, float]] = []
    bar = tqdm(total=steps, desc=f"{name}, seed {seed}")
    reset_peak()

    def look(step: int) -> None:
        bar.update(1)
        if step in points:
            scored = score(half.eval(), judge, texts)
            half.train()
            means = {n: round(mean(scored, n), 4) for n in SCORES}
            curve.append({"tokens": step * batches[0].numel(), **means})

    seconds = repair(
        half, lesson, batches, teacher=teacher, keep=lab.keep, rate=rate,
        after_step=look,
    )  # fmt: skip
    bar.close()
    return half.eval(), {"curve": curve, "seconds": round(seconds, 1)}


SCORES = ("nll", "kl", "agree")


def tried_rates(name: str) -> list[tuple[float, float]]:
    """(validation score, rate) of what was tried, by the lesson's yardstick.

    The loss on text for lessons of text, else KL to the teacher. Another
    teacher changes no rate.
    """
    plain = name.removeprefix("tuned_").removeprefix("nf4_")
    by = "nll" if LESSONS[plain].text else "kl"
    rows = [
        json.loads(path.read_text(encoding="utf-8"))
        for path in (RESULTS / "tuning").glob(f"{plain}-*.json")
    ]
    return [(row["curve"][-1][by], row["rate"]) for row in rows]


def tune(name: str, lab: Lab, steps: int) -> None:
    """Try RATES from the highest, until a lower one scores worse."""
    for rate in RATES:
        path = RESULTS / "tuning" / f"{name}-{rate:g}.json"
        if not path.exists():
            _, told = run_lesson(
                name, lab, seed=TUNING_SEED, steps=steps, rate=rate, looks=1
            )
            write(path, {"lesson": name, "steps": steps, "rate": rate, **told})
        if min(tried_rates(name))[1] > rate:
            break


def write(path: Path, row: dict[str, Any]) -> None:
    """One result file, whole or not at all."""
    about = {"versions": package_versions(), "date": date.today().isoformat()}
    write_atomic(path, json.dumps(row | about) + "\n")
    last = row["curve"][-1] if row["curve"] else {}
    print(f"{path.stem}: {last}, {row['seconds']} s", flush=True)


def measured(name: str, lab: Lab, *, seed: int, steps: int) -> dict[str, Any]:
    """One lesson trained, or a model that needs none, on the test texts."""
    told: dict[str, Any] = {"curve": [], "seconds": 0.0}
    if name in BASELINES:
        model = teacher_of(name, lab)
    elif name == "untrained":
        model = prune_layers(lab.teacher, lab.keep)
        told |= anatomy(lab)
    else:
        tried = tried_rates(name)
        if not tried:
            raise CourseError(
                f"no rate was tuned for {name}: "
                "`python3 -m helpers half --tune --steps 16`"
            )
        _, rate = min(tried)
        model, told = run_lesson(
            name, lab, seed=seed, steps=steps, rate=rate, looks=POINTS
        )
        told |= {"rate": rate}
        told |= looked_into(model, lab) if steps > STEPS else {}
    texts = held_out(lab.tokenizer, lab.texts["test"])
    return {
        "seed": seed,
        "peak_memory_mb": round(peak_memory_mb()),
        "command": f"python3 -m helpers half --lesson {name} --steps {steps} "
        f"--seed {seed}",
        **told,
        **score(model.eval(), opinions(lab.teacher, texts), texts),
    }


def main(argv: list[str]) -> int:
    """`python3 -m helpers half`."""
    parser = command_parser("half", __doc__)
    add = parser.add_argument
    names = [*BASELINES, "untrained", *LESSONS]
    add("--lesson", choices=names, nargs="+", default=names)
    add("--steps", type=count, default=str(STEPS), help="of 1,024 tokens")
    add("--tune", action="store_true", help="try RATES on validation texts")
    options = parser.parse_args(argv)
    problems = get_profile().problems
    if problems == "mini":
        raise CourseError(
            "this experiment reads GSM8K: set DISTILL_PROBLEMS to openai/gsm8k"
            ", or to a folder with its train.jsonl and test.jsonl."
        )
    lab = make_lab(fetch_gemma(), problems)
    for name in options.lesson:
        steps = options.steps if name in LESSONS else 0
        path = RESULTS / f"{name}-{steps}-seed{options.seed}.json"
        if options.tune and steps:
            tune(name, lab, steps)
        elif not options.tune and not path.exists():
            seed = int(options.seed)
            row = measured(name, lab, seed=seed, steps=steps)
            write(path, {"lesson": name, "steps": steps} | row)
    return 0
