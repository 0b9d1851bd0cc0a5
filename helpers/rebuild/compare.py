"""`python3 -m helpers compare`: every signal, budget and seed of notebook 08.

One file each in data/results/kd; what is there is skipped, so that a killed
command goes on. PLAN.md, beside the results, came first.
"""

import itertools
import json
import multiprocessing
import os
import re
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import replace
from functools import cache
from pathlib import Path
from signal import SIG_DFL, SIGTERM
from signal import signal as answer
from typing import Any

import torch

from helpers import CourseError
from helpers.answers import NO_SOLUTION, gold_answer
from helpers.cli.commands import command_parser, count
from helpers.distill import pair_profile
from helpers.files.disk import write_atomic
from helpers.losses import log_probabilities
from helpers.models import Loaded, add_lora, load_student
from helpers.problems import load_problems
from helpers.profiles import Profile, get_profile, set_seed
from helpers.rebuild.arms import KD_RESULTS, SPLITS
from helpers.rebuild.calibration import calibration_error, tenths
from helpers.rebuild.decoding import quick_evaluate
from helpers.rebuild.lessons import (
    SHIPPED,
    Setting,
    ask,
    learn,
    listen,
    rows_of,
    sampled,
    teacher_of,
)
from helpers.rebuild.signals import SIGNALS, Signal
from helpers.results import to_result, write_result

BUDGETS, SEEDS = (64, 250, 1000), range(7, 17)
UNTRAINED = ("teacher", "untouched")
TUNING_SEED, CHOOSING = 1, 500  # problems of the validation
TRIES = [Setting(r, n) for n in (1000, 2000) for r in (2e-3, 4e-3)]
SMOOTHED = [Setting(4e-3, 2000, e) for e in (0.01, 0.03, 0.1)]
SMOOTHED += [Setting(2e-3, 2000, 0.03)]
GENTLE = [Setting(r, 2000) for r in (5e-4, 1e-3, 2e-3, 4e-3)]  # own text
ROWS = 256  # asked at once
JUDGED = 256  # texts of the test, by the teacher at T = 1
JUDGE = Signal("the teacher", logits=True)
NUMBER = r"-?\d+(?:\.\d+)?"
GRADERS = {  # what counts as the answer of a text; ours is `extract_answer`
    "strict": rf"The answer is ({NUMBER})\.$",
    "last number": rf"({NUMBER})(?!.*\d)",
    "any number": rf"({NUMBER})",
}


@cache
def judged_rows(profile: Profile) -> list[dict]:
    """The teacher's opinion of its own texts about questions of the test."""
    asked = load_problems(profile.problems, "test", limit=JUDGED)
    texts = sampled(profile, "judged", asked)
    student = load_student(profile)
    return listen(texts, JUDGE, student, profile, seed=0)


@torch.no_grad()
def judged(student: Loaded, rows: list[dict]) -> dict[str, float]:
    """Means over the tokens of the judged texts.

    nll: of the teacher's text, nats; kl: KL(teacher || student), nats; ece:
    the `calibration_error`.
    """
    size, parts = len(student.tokenizer), []
    for row in rows:
        out, labels, mask = ask(student.model, [row])
        logits = out.logits[:, :-1, :size][mask][row["soft"]]
        tokens, logs = labels[mask][row["soft"]], log_probabilities(logits)
        sure, guess = logs.exp().max(dim=-1)
        nll = -logs.gather(-1, tokens[:, None])[:, 0]
        kl = (row["taught"].exp() * (row["taught"] - logs)).sum(dim=-1)
        parts.append(torch.stack([nll, kl, sure, guess == tokens]))
    nll, kl, sure, right = torch.cat(parts, dim=1).double()
    ece = calibration_error(tenths(sure, right))
    means = {"nll": nll.mean(), "kl": kl.mean(), "ece": ece}
    return {name: round(float(mean), 5) for name, mean in means.items()}


def graded(texts: Sequence[str], problems: Sequence[dict]) -> dict[str, int]:
    """How many answers each of GRADERS calls right."""
    right = dict.fromkeys(GRADERS, 0)
    for text, problem in zip(texts, problems, strict=True):
        gold, plain = gold_answer(problem["answer"]), text.replace(",", "")
        for name, rule in GRADERS.items():
            answers = re.findall(rule, plain, re.DOTALL)
            if gold == NO_SOLUTION:
                answers = re.findall(NO_SOLUTION, plain)
            right[name] += gold in answers
    return right


def taught(
    arm: str, profile: Profile, budget: int, seed: int, setting: Setting
) -> tuple[Loaded, float]:
    """One student, and the processor's seconds that it took to teach it."""
    signal, started = SIGNALS[arm], time.process_time()
    set_seed(seed)
    student = load_student(profile)
    student = add_lora(student, rank=profile.rank, seed=seed)
    rows = rows_of(signal, profile, budget, seed)
    heard = listen(rows, signal, student, profile, seed)
    learn(student, heard, signal, profile=profile, setting=setting, seed=seed)
    merged = replace(student, model=student.model.merge_and_unload())
    return merged, time.process_time() - started


def tuning_file(arm: str, budget: int) -> Path:
    return KD_RESULTS / "tuning" / f"{budget:04d}-{arm}.json"


def tries_of(arm: str) -> list[Setting]:
    """The arm's four."""
    if not (signal := SIGNALS[arm]).own:
        return SMOOTHED if arm == "smoothed" else TRIES
    return [replace(one, reads=int(one.reads / signal.cost)) for one in GENTLE]


def tune(arm: str, profile: Profile, budget: int) -> str:
    """Every try, on validation problems; one file for arm and budget."""
    asked = load_problems(profile.problems, "validation", limit=CHOOSING)
    tries = []
    for setting in tries_of(arm):
        student, seconds = taught(arm, profile, budget, TUNING_SEED, setting)
        right = sum(quick_evaluate(student, asked, profile).correct)
        row = {**vars(setting), "correct": right, "n": len(asked)}
        tries.append(row | {"seconds": round(seconds, 1)})
    text = json.dumps({"arm": arm, "budget": budget, "tries": tries}, indent=1)
    write_atomic(tuning_file(arm, budget), text + "\n")
    return " ".join(f"{row['correct']}" for row in tries)


def setting_of(arm: str, budget: int) -> Setting:
    """The best try; of equal ones the first, which read least.

    Raises CourseError where the arm has not been tuned.
    """
    path = tuning_file(SIGNALS[arm].like or arm, min(budget, SHIPPED))
    if not path.exists():
        raise CourseError(
            f"{arm} was not tuned yet: `python3 -m helpers compare --tune`"
        )
    tries = json.loads(path.read_text("utf-8"))["tries"]
    best = max(tries, key=lambda row: row["correct"])
    return Setting(best["rate"], best["reads"], best["smoothing"])


def measure(arm: str, profile: Profile, budget: int, seed: int) -> str:
    """Train one student, or none, and write what it scores."""
    notes, seconds = "no training", 0.0
    if arm in UNTRAINED:
        load = teacher_of if arm == "teacher" else load_student
        student = load(profile)
        student.model.eval()
    else:
        setting = setting_of(arm, budget)
        student, seconds = taught(arm, profile, budget, seed, setting)
        notes = f"{budget} traces, rate {setting.rate:g}, {setting.reads} read"
        notes += f", smoothing {setting.smoothing:g}" * bool(setting.smoothing)
    scores = {
        split: quick_evaluate(
            student, load_problems(profile.problems, split), profile
        )
        for split in SPLITS
    }
    result = to_result(
        arm, scores, profile=profile, seed=seed, notes=notes,
        command=f"python3 -m helpers compare --arms {arm} --budgets {budget} "
        f"--seeds {seed}",
    )  # fmt: skip
    told: dict[str, Any] = judged(student, judged_rows(profile))
    told["training_seconds"] = round(seconds, 1)
    test = scores["test"]
    texts = [completion.text for completion in test.completions]
    told["graders"] = graded(texts, test.problems)
    write_result(replace(result, judged=told), folder_of(budget))
    return scores["test"].score


def folder_of(budget: int) -> Path:
    return KD_RESULTS / f"budget_{budget:04d}"


def lab_profile() -> Profile:
    """The one-tokenizer pair of `mini`, in float32."""
    profile = pair_profile(get_profile("mini"))
    return replace(profile, load_in_4bit=False, evaluation_batch=ROWS)


def work(job: tuple[str, int, int], tuning: bool) -> str:
    """One job, in a process of its own."""
    (arm, budget, seed), profile = job, lab_profile()
    started = time.perf_counter()
    if tuning:
        line = tune(arm, profile, budget)
    else:
        line = measure(arm, profile, budget, seed)
    seconds = time.perf_counter() - started
    return f"{arm}, {budget}, seed {seed}: {line}; {seconds:.0f} s"


def begin(threads: int) -> None:
    """In each process: so many threads, and an end with the one above it."""
    torch.set_num_threads(threads)

    def follow() -> None:
        multiprocessing.parent_process().join()
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()


def open_jobs(options: Any) -> Iterator[tuple[str, int, int]]:
    """(arm, budget, seed) without a file, seed by seed."""
    for seed, budget, arm in itertools.product(
        options.seeds, options.budgets, options.arms
    ):
        large = budget > SHIPPED  # five seeds, and not all: see the plan
        small = arm == "gold" or arm in SIGNALS and SIGNALS[arm].own
        if large and (small or seed not in SEEDS[:5]):
            continue
        if options.tune:
            first = seed == options.seeds[0] and budget <= SHIPPED
            needed = arm in SIGNALS and not SIGNALS[arm].like
            path = tuning_file(arm, budget)
            if first and needed and not path.exists():
                yield arm, budget, TUNING_SEED
            continue
        where = budget
        if arm in UNTRAINED:
            where = 0
            if (seed, budget) != (options.seeds[0], options.budgets[0]):
                continue
        if not (folder_of(where) / f"mini-{arm}-seed{seed}.json").exists():
            yield arm, where, seed


def main(argv: Sequence[str]) -> int:
    """`python3 -m helpers compare`."""
    parser = command_parser("compare", __doc__)
    add = parser.add_argument
    add("--arms", nargs="+", default=[*UNTRAINED, *SIGNALS],
        choices=[*UNTRAINED, *SIGNALS])  # fmt: skip
    add("--budgets", nargs="+", type=int, default=BUDGETS[:2], choices=BUDGETS)
    add("--seeds", nargs="+", type=int, default=list(SEEDS))
    add("--jobs", type=count, default="1", help="processes")
    add("--tune", action="store_true", help="the tries on validation first")
    options = parser.parse_args(argv)
    jobs = list(open_jobs(options))
    print(f"{len(jobs)} runs to do", flush=True)
    if any(
        SIGNALS[arm].rows == "sampled" for arm, *_ in jobs if arm in SIGNALS
    ):
        sampled(lab_profile(), "sampled", load_problems("mini", "train"))
    if jobs and not options.tune:  # each file once, before there are two
        judged_rows(lab_profile())
    # At once: files are whole or not there, and the processes follow.
    answer(SIGTERM, SIG_DFL)
    threads = max(1, (os.cpu_count() or 1) // options.jobs)
    with ProcessPoolExecutor(
        options.jobs,
        multiprocessing.get_context("spawn"),
        initializer=begin,
        initargs=(threads,),
    ) as pool:
        done = [pool.submit(work, job, options.tune) for job in jobs]
        for number, one in enumerate(as_completed(done), start=1):
            print(f"{number}/{len(jobs)} {one.result()}", flush=True)
    return 0
