"""A dress rehearsal of the `laptop` profile on a machine without a network.

    python3 tests/rehearse_laptop.py GSM8K_FOLDER

runs notebooks 02, 03 and 04 with the profile's own settings, its prompt and
its cells, on local folders where the profile names ids of the hub:

- the student is the real Gemma 3 270M (`helpers test` fetches it once), the
  base model, which was never taught to answer;
- the teacher is a toy Qwen3 that knows fifty GSM8K questions by heart;
- the problems are short ones of GSM8K_FOLDER (train.jsonl, test.jsonl).

It tests the plumbing from the traces to the report. Its accuracies measure
nothing: a teacher that recites cannot solve a question it has not seen.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # for a Python without the environment

from helpers.cli import environment  # noqa: E402

RUNS = ROOT / "data" / "runs"
REHEARSAL = RUNS / "rehearsal"
TEACHER, PROBLEMS = REHEARSAL / "reciting-qwen3", REHEARSAL / "problems"
MARK = RUNS / "laptop" / "rehearsal.txt"
TRAIN, VALIDATION, TEST = 50, 20, 20
SHORT = 240  # characters of question and answer together
SETTINGS = {
    "TEACHER": str(TEACHER),
    "PROBLEMS": str(PROBLEMS),
    "TRACES": "50",
    "MAX_NEW_TOKENS": "112",
    "MAX_LENGTH": "160",
    "GENERATION_BATCH": "25",
    "EVALUATION": "20",
    "EVALUATION_BATCH": "20",
    "BATCH_SIZE": "2",
    "GRADIENT_ACCUMULATION": "2",
}


def write_problems(source: Path) -> list[dict]:
    """Short GSM8K problems as a folder of three splits; returns train."""
    from helpers.problems import read_problems

    def short(name: str, count: int) -> list[dict]:
        rows = read_problems(source / f"{name}.jsonl")
        size = (len(row["question"] + row["answer"]) for row in rows)
        pairs = zip(rows, size, strict=True)
        return [row for row, length in pairs if length < SHORT][:count]

    train = short("train", TRAIN + VALIDATION)
    splits = {
        "train": train[:TRAIN],
        "validation": train[TRAIN:],
        "test": short("test", TEST),
    }
    print("problems:", {name: len(rows) for name, rows in splits.items()})
    PROBLEMS.mkdir(parents=True, exist_ok=True)
    for name, rows in splits.items():
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        (PROBLEMS / f"{name}.jsonl").write_text(lines, encoding="utf-8")
    return splits["train"]


def trace(answer: str) -> str:
    """A gold answer as a thinking teacher would give it."""
    worked, _, value = answer.rpartition("\n#### ")
    worked = re.sub(r"<<.*?>>", "", worked)
    return f"<think>\n{worked}\n</think>\n\nIt is \\boxed{{{value}}}."


def make_teacher(problems: list[dict]) -> None:
    """Fine-tune mini-qwen3 until it recites the traces of `problems`.

    Raises SystemExit when it has not learned at least nine in ten.
    """
    from dataclasses import replace

    from datasets import Dataset

    from helpers import chat
    from helpers.evaluate import evaluate
    from helpers.models import load_teacher
    from helpers.profiles import PROFILES, set_seed
    from helpers.rebuild.bench_memory import Given
    from helpers.traces import teacher_messages

    set_seed(7)
    loaded = load_teacher(PROFILES["mini"])  # float32
    profile = PROFILES["laptop"]
    rows = []
    for row in problems:
        messages = teacher_messages(row["question"], profile)
        messages.append({"role": "assistant", "content": trace(row["answer"])})
        rows.append(
            chat.encode_example(messages, loaded.tokenizer, max_length=1024)
        )
    sizes = {"batch_size": 10, "epochs": 60, "learning_rate": 2e-3}
    lesson = Given(Dataset.from_list(rows), make=None)  # all weights learn
    lesson.trainer(loaded, profile=replace(PROFILES["mini"], **sizes)).train()
    loaded.model.save_pretrained(TEACHER)
    loaded.tokenizer.save_pretrained(TEACHER)
    told = evaluate(
        loaded,
        problems,
        profile=profile,
        mode="teacher",
        sampling=profile.sampling(),
        batch_size=profile.generation_batch,
    )
    known = sum(told.correct)
    print(f"the teacher recites {known} of {len(problems)} answers")
    if known < 0.9 * len(problems):
        raise SystemExit("That is too few to rehearse with: train longer.")


def prepare(source: Path) -> Path:
    """Problems and teacher; returns the folder of the real student."""
    from helpers.cli.fetch import fetch_gemma

    folder = fetch_gemma()
    problems = write_problems(source)
    if not (TEACHER / "config.json").exists():
        make_teacher(problems)
    return folder


def clear_laptop() -> None:
    """Remove the last rehearsal's run; a real one is never touched."""
    if MARK.parent.exists() and not MARK.exists():
        raise SystemExit(
            "data/runs/laptop holds a run of yours. Move it away first: the "
            "rehearsal writes there."
        )
    shutil.rmtree(MARK.parent, ignore_errors=True)
    MARK.parent.mkdir(parents=True)
    MARK.write_text(__doc__ or "", encoding="utf-8")


def rehearse(student: Path) -> int:
    """Run the three notebooks; the results go out of the tables' way."""
    settings = {**SETTINGS, "STUDENT": str(student)}
    for name, value in settings.items():
        print(f"DISTILL_{name}={value.removeprefix(f'{ROOT}{os.sep}')}")
    command = [sys.executable, "-m", "helpers", "run", "--profile", "laptop"]
    for number in ("02", "03", "04"):
        command += ["--notebook", number]
    print(" ".join(command[1:]), flush=True)
    own = {f"DISTILL_{name}": value for name, value in settings.items()}
    done = subprocess.run(command, cwd=ROOT, env={**os.environ, **own})
    results = REHEARSAL / "results"
    results.mkdir(exist_ok=True)
    for path in (RUNS / "results").glob("laptop-*.json"):
        path.replace(results / path.name)
    copies = REHEARSAL / "notebooks"
    shutil.copytree(RUNS / "notebooks", copies, dirs_exist_ok=True)
    print("A rehearsal: notebooks and results are in data/runs/rehearsal.")
    return done.returncode


def main(argv: list[str]) -> int:
    """Exit status of the run; 2 without a folder of problems."""
    if len(argv) != 1 or not (Path(argv[0]) / "train.jsonl").is_file():
        print((__doc__ or "").split("\n\n")[1].strip(), file=sys.stderr)
        return 2
    python = environment.ensure()
    if python != sys.executable:
        return subprocess.run([python, __file__, *argv]).returncode
    clear_laptop()
    return rehearse(prepare(Path(argv[0])))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
