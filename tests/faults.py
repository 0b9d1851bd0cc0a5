"""Faults on purpose, and what they cost: `python tests/faults.py --hits 30`.

In a small copy of the course, in a temporary folder, each command is begun,
struck (a signal, a full disk, a read-only folder, a second run, a dead
kernel) and begun again. It must finish, and leave what an undisturbed run
leaves (training: within 1e-4) beside all that was there before. The table
goes into tests/README.md. Linux only; not part of `helpers test`.
"""

import argparse
import contextlib
import ctypes
import fcntl
import json
import multiprocessing
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import psutil

ROOT = Path(__file__).resolve().parents[1]
COURSE = Path(tempfile.mkdtemp(prefix="distill-faults-")) / "course"
RUNS, KD = COURSE / "data/runs", COURSE / "data/results/kd"
MARKS = ("<!-- faults:start -->", "<!-- faults:end -->")
SMALL = {  # of the copy's profile mini
    "max_new_tokens": 12, "generation_batch": 2, "epochs": 2, "batch_size": 4,
    "kd_batch_size": 4, "traces": 24,
}  # fmt: skip
COMMANDS = {
    "traces": ["traces", "--output", "data/runs/mine.jsonl"],
    "cache": ["cache"],
    "sft": ["sft", "--limit", "12"],
    "distill": ["distill", "--arm", "logit_online", "--budget", "12",
                "--write"],
    "compare": ["compare", "--arms", "text", "--budgets", "64",
                "--seeds", "7"],
}  # fmt: skip
SIGNALS = (signal.SIGKILL, signal.SIGINT, signal.SIGTERM)
WORDS = ("tries", "lost", "silent", "hung", "left", "traceback")
VARYING = {"seconds", "training_seconds", "peak_memory_mb", "date"}
PATIENCE = 600  # seconds: what takes longer has hung


def copy_course() -> None:
    """The course with few problems and traces, and small numbers."""
    names = ("helpers", "notebooks", "environment.yml", "pyproject.toml")
    skip = shutil.ignore_patterns("runs", "__pycache__", "budget_*")
    shutil.copytree(ROOT / "data", COURSE / "data", ignore=skip)
    for name in names:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, COURSE / name)
    for path in (COURSE / "data/problems").glob("*.jsonl"):
        keep(path, 60 if path.stem == "train" else 3)
    keep(COURSE / "data/traces/teacher.jsonl", 100)
    table = COURSE / "data/profiles.toml"
    mini, rest = table.read_text().split("\n\n# What the next", 1)
    lines = [line.partition(" = ") for line in mini.splitlines()]
    mini = "\n".join(
        f"{name} = {SMALL[name]}" if name in SMALL else name + is_ + value
        for name, is_, value in lines
    )
    table.write_text(f"{mini}\n\n# What the next{rest}")
    tries = [{"rate": 1e-3, "reads": 32, "smoothing": 0.0, "correct": 1}]
    tuned = json.dumps({"tries": tries})
    (KD / "tuning/0064-text.json").write_text(tuned)
    (RUNS / "mini/traces").mkdir(parents=True)
    # `compare` needs longer texts, and so another place for its traces.
    shutil.copy(COURSE / "data/traces/teacher.jsonl", RUNS / "mini/traces")


def keep(path: Path, lines: int) -> None:
    content = path.read_text("utf-8").splitlines(keepends=True)
    path.write_text("".join(content[:lines]), "utf-8")


def prepare() -> None:
    """Import everything once, from the copy; each run is a fork of this."""
    sys.path.insert(0, str(COURSE))
    os.chdir(COURSE)
    os.environ |= {"PYTHONPATH": str(COURSE), "OMP_NUM_THREADS": "1"}
    os.environ["UNSLOTH_COMPILE_LOCATION"] = str(COURSE.parent / "unsloth")
    os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
    import torch

    from helpers import models
    from helpers.cli import commands, environment

    models.unsloth_backend()
    import helpers.trainer  # noqa: F401
    from helpers.cli import run, students, traces  # noqa: F401
    from helpers.rebuild import compare, experiments  # noqa: F401

    torch.set_num_threads(1)
    os.cpu_count = lambda: 1  # one core, also for the processes of compare
    environment.find = lambda: sys.executable
    commands.COMMANDS["cache"] = SimpleNamespace(bare=False, main=make_cache)
    experiments.READS = 24
    fork = multiprocessing.get_context("fork")  # 20 s less than a new Python
    multiprocessing.get_context = lambda _=None: fork


def make_cache(_: list[str]) -> int:
    """What `distill --arm logit_cached` does first, and no more."""
    from helpers import logit_cache, models
    from helpers.distill import pair_profile
    from helpers.profiles import get_profile
    from helpers.traces import load_traces

    logit_cache.SHARD_ROWS = 6
    profile = pair_profile(get_profile("mini"))
    teacher = models.load_teacher(profile)
    logit_cache.write_cache(
        list(load_traces(COURSE / "data/traces/teacher.jsonl"))[:60], teacher,
        profile.run_folder / "cache" / "made", tokenizer=teacher.tokenizer,
        max_length=320, batch_size=1,
    )  # fmt: skip
    return 0


class Run:
    """One command in a process group of its own; its words in a pipe."""

    def __init__(self, argv: list[str], *, disk: int = -1, locked=False):
        self.words, end = os.pipe()
        fcntl.fcntl(self.words, fcntl.F_SETPIPE_SZ, 2**20)  # nobody reads yet
        self.worked, self.status = 0.0, None
        self.pid = os.fork()
        if self.pid:
            os.close(end)
            return
        os.setpgid(0, 0)
        os.dup2(end, 1)
        os.dup2(end, 2)
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
        signal.signal(signal.SIGINT, signal.default_int_handler)
        if argv[0] == "compare":
            os.environ["DISTILL_MAX_NEW_TOKENS"] = "110"
        status = 1
        try:
            if disk >= 0:
                resource.setrlimit(resource.RLIMIT_FSIZE, (disk, disk))
            if locked:
                obey_permissions()
            from helpers.cli.main import main

            status = main(argv)
        except SystemExit as error:
            status = error.code
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            os._exit(status or 0)

    def over(self) -> bool:
        """Whether the process has ended."""
        if self.status is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.status = os.waitstatus_to_exitcode(status)
        return self.status is not None

    def wait(self, until: float) -> bool:
        """Whether it ended before it had computed for `until` seconds."""
        late = time.monotonic() + PATIENCE
        while not self.over() and time.monotonic() < late:
            with contextlib.suppress(psutil.Error):  # it has just ended
                me = psutil.Process(self.pid)
                all_of_it = [me, *me.children(recursive=True)]
                self.worked = sum(sum(p.cpu_times()[:2]) for p in all_of_it)
            if self.worked > until:
                return False
            time.sleep(0.03)
        return self.over()

    def strike(self, number: int) -> None:
        """As a terminal does it (to all), or as `kill` does (to one)."""
        send = os.killpg if number == signal.SIGINT else os.kill
        with contextlib.suppress(ProcessLookupError):
            send(self.pid, number)

    def end(self) -> Counter[str]:
        """Wait for it and for what it started; what went wrong in it."""
        faults = Counter(hung=not self.wait(PATIENCE))
        with contextlib.suppress(ProcessLookupError):
            for _ in range(100 if self.status is not None else 0):
                os.killpg(self.pid, 0)  # raises once the group is empty
                time.sleep(0.1)
            os.killpg(self.pid, signal.SIGKILL)
            faults["left"] = 1
        self.wait(PATIENCE + 9)
        os.set_blocking(self.words, False)
        with contextlib.suppress(BlockingIOError):
            self.text = os.read(self.words, 2**20).decode(errors="replace")
        os.close(self.words)
        faults["traceback"] = "Traceback (most recent" in self.text
        return faults


def obey_permissions() -> None:
    """Let root too be refused what a file's permissions refuse."""
    if os.geteuid() == 0:
        libc = ctypes.CDLL(None, use_errno=True)
        header = (ctypes.c_uint32 * 2)(0x20080522, 0)
        sets = (ctypes.c_uint32 * 6)()  # effective first
        libc.capget(header, sets)
        sets[0] &= ~0b110  # neither DAC_OVERRIDE nor DAC_READ_SEARCH
        if libc.capset(header, sets):
            raise OSError(ctypes.get_errno(), "capset")


@contextlib.contextmanager
def read_only(folder: Path) -> Iterator[None]:
    """No file and no folder there can be changed."""
    paths = [folder, *folder.rglob("*")]
    for path in paths:
        path.chmod(path.stat().st_mode & ~0o222)
    yield
    for path in paths:
        path.chmod(path.stat().st_mode | 0o200)


def contents() -> dict[str, Any]:
    """Every whole file of data, as what is compared of it."""
    from safetensors.numpy import load_file

    data: dict[str, Any] = {}
    for path in sorted((COURSE / "data").rglob("*")):
        name = str(path.relative_to(COURSE))
        draft = path.name.startswith(".") or ".part/" in f"{name}/"
        if path.is_dir() or draft or "/locks/" in name:
            continue
        data[name] = path.read_bytes()
        if "/runs/" in name and path.name == "adapter_model.safetensors":
            data[name] = load_file(path)
        elif path.suffix == ".json" and {"runs", "results"} & {*path.parts}:
            data[name] = json.loads(data[name])
    return data


def alike(one: Any, other: Any) -> bool:
    """Equal, but for seconds and the like; numbers within 1e-4."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(
            name in VARYING or alike(one[name], other[name]) for name in one
        )
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(alike, one, other))
    if isinstance(one, bytes | str) or one is None or other is None:
        return one == other
    return bool(np.all(abs(one - other) < 1e-4))


class Campaign:
    """The commands, what they leave undisturbed, and the counts so far."""

    def __init__(self, rng: random.Random) -> None:
        self.rng, self.rows = rng, {}
        self.whole: dict[str, dict[str, Any]] = {}
        self.seconds: dict[str, float] = {}
        self.largest: dict[str, int] = {}
        self.start = COURSE.parent / "start"
        for name in ("sft", "compare"):  # what must still be there after all
            self.do(COMMANDS[name])
        (RUNS / "mini/sft").rename(RUNS / "mini/sft_before")
        for path in KD.rglob("budget_0064/*.json"):
            path.unlink()
        shutil.copytree(COURSE / "data", self.start)
        self.before = contents()

    def do(self, argv: list[str]) -> Run:
        """Undisturbed; raises RuntimeError if that fails."""
        run = Run(argv)
        faults = run.end()
        if run.status or any(faults.values()):
            raise RuntimeError(f"{argv}: {run.status}, {faults}, {run.text}")
        return run

    def reset(self) -> None:
        for name in ("runs", "results", "traces"):
            shutil.rmtree(COURSE / "data" / name)
            shutil.copytree(self.start / name, COURSE / "data" / name)

    def measure(self, name: str) -> None:
        """What the undisturbed command leaves, and how long it takes."""
        self.reset()
        self.seconds[name] = self.do(COMMANDS[name]).worked
        self.whole[name] = contents()
        new = self.whole[name].keys() - self.before.keys()
        sizes = [(COURSE / path).stat().st_size for path in new]
        self.largest[name] = max(sizes)
        print(name, f"{self.seconds[name]:.1f} s of a core, undisturbed")

    def count(self, fault: str, name: str, faults: Counter[str]) -> None:
        """One more try in the table; a line for each that went wrong."""
        row = self.rows.setdefault((fault, name), Counter())
        row.update({word: int(number) for word, number in faults.items()})
        row["tries"] += 1
        words = [word for word, number in faults.items() if number]
        print(fault, name, *words, flush=True)

    def judge(self, name: str, struck: dict[str, Any]) -> Counter[str]:
        """Begin it again; what was lost, or is not as undisturbed.

        struck: the content at the moment of the fault.
        """
        again = Run(COMMANDS[name])
        faults = again.end()
        now, whole = contents(), self.whole[name]
        kept = self.kept(now)
        for path, content in struck.items():
            if path.endswith(".jsonl") and content:
                lines = content[: content.rfind(b"\n") + 1]
                kept &= now.get(path, b"").startswith(lines)
        faults["lost"] = not kept
        if again.status:
            print(again.text[-600:])
            faults["hung"] = 1  # it did not finish
        elif not alike(now, whole):
            odd = {p: not alike(now.get(p), whole.get(p)) for p in now | whole}
            print("not as undisturbed:", sorted(p for p in odd if odd[p]))
            faults["silent"] = 1
        return faults

    def kept(self, now: dict[str, Any]) -> bool:
        """Whether all that was there before anything began is still there."""
        return all(
            path in now and alike(old, now[path])
            for path, old in self.before.items()
        )

    def hit(self, name: str, number: int) -> None:
        """A signal at a random moment."""
        share = self.rng.random()
        while True:
            self.reset()
            run = Run(COMMANDS[name])
            if not run.wait(share * self.seconds[name]):
                break
            run.end()
            share *= 0.8  # it was faster than the undisturbed one
        run.strike(number)
        faults = run.end()
        if faults["traceback"]:
            print(run.text[-1500:])
        faults += self.judge(name, json_lines())
        self.count(signal.Signals(number).name, name, faults)

    def refused(self, fault: str, name: str, place: Any, **how: Any) -> None:
        """It has to fail in words, and to finish when begun again."""
        self.reset()
        with place:
            run = Run(COMMANDS[name], **how)
            faults = run.end()
        if faults["traceback"] or run.status not in (0, 2):
            faults["traceback"] = 1
            print(run.status, run.text[-1500:])
        self.count(fault, name, faults + self.judge(name, json_lines()))

    def twice(self, name: str) -> None:
        """Two at once: each finishes, or says that there is another."""
        self.reset()
        runs = [Run(COMMANDS[name]) for _ in range(2)]
        faults = runs[0].end() + runs[1].end()
        if {run.status for run in runs} - {0, 2} or all(
            run.status for run in runs
        ):
            print([(run.status, run.text[-900:]) for run in runs])
            faults["traceback"] += 1
        self.count("two at once", name, faults + self.judge(name, {}))

    def kernel(self, name: str) -> None:
        """The kernel dies in a notebook; then it is run from its start."""
        argv, dead = ["run", "--notebook", name], 0
        late = 5 + self.rng.random() * 60
        while not dead:  # earlier, if the notebook has ended before
            shutil.rmtree(RUNS, ignore_errors=True)
            run, begun = Run(argv), time.monotonic()
            while not run.over():
                if not dead and time.monotonic() - begun > late:
                    dead = kill_kernels(run.pid)
                time.sleep(0.1)
            faults = run.end()
            late *= 0.7
        faults["silent"] = run.status == 0
        again = Run(argv)
        faults += again.end()
        faults["hung"] += again.status != 0
        faults["lost"] = not self.kept(contents())
        self.count("kernel killed", f"run {name}", faults)

    def table(self, options: argparse.Namespace) -> str:
        """In Markdown; commands as columns would be narrower, but hide."""
        lines = [f"| fault | command | {' | '.join(WORDS)} |"]
        lines += ["|---|---|" + "---:|" * len(WORDS)]
        rows = self.rows | {("all", ""): sum(self.rows.values(), Counter())}
        for (fault, name), row in rows.items():
            cells = [str(row[word]) for word in WORDS]
            lines.append(f"| {fault} | {name} | {' | '.join(cells)} |")
        minutes = sum(os.times()[:4]) / 60
        note = f"`python tests/faults.py --hits {options.hits} --seed "
        note += f"{options.seed}`; its last part, {' '.join(options.only)} "
        note += f"{' '.join(options.notebooks)}, {minutes:.0f} core-minutes."
        return "\n".join([*lines, "", note])


def kill_kernels(pid: int) -> int:
    """How many were there."""
    dead = 0
    with contextlib.suppress(psutil.Error):  # it has just ended
        for child in psutil.Process(pid).children(recursive=True):
            if "ipykernel" in " ".join(child.cmdline()):
                child.kill()
                dead += 1
    return dead


def rows_before() -> dict[tuple[str, str], Counter[str]]:
    """The table that tests/README.md holds, without its sum."""
    rows = {}
    for line in (ROOT / "tests/README.md").read_text("utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if len(cells) == 2 + len(WORDS) and cells[1] and cells[2].isdigit():
            counts = zip(WORDS, map(int, cells[2:]), strict=True)
            rows[cells[0], cells[1]] = Counter(dict(counts))
    return rows


def json_lines() -> dict[str, bytes]:
    """What a kill left: only JSON lines are looked at, and these are read."""
    paths = (COURSE / "data").rglob("*.jsonl")
    return {str(p.relative_to(COURSE)): p.read_bytes() for p in paths}


def write(table: str, nowhere: bool) -> None:
    """Between the marks in tests/README.md; after each command."""
    print(table, flush=True)
    if not nowhere:
        readme = ROOT / "tests/README.md"
        before, _, rest = readme.read_text("utf-8").partition(MARKS[0])
        after = rest.partition(MARKS[1])[2]
        text = f"{before}{MARKS[0]}\n\n{table}\n\n{MARKS[1]}{after}"
        readme.write_text(text, "utf-8")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--hits", type=int, default=30, help="signals for each command")
    add("--seed", type=int, default=18)
    add("--only", nargs="*", choices=COMMANDS, default=[*COMMANDS])
    add("--notebooks", nargs="*", default=["00", "10"], help="all: 00 01 ...")
    add("--no-table", action="store_true", help="leave tests/README.md")
    options = parser.parse_args()
    rng = random.Random(options.seed)
    print("seed", options.seed, "in", COURSE, flush=True)
    copy_course()
    prepare()
    campaign = Campaign(rng)
    names = {*options.only, *(f"run {name}" for name in options.notebooks)}
    campaign.rows = {
        key: row for key, row in rows_before().items() if key[1] not in names
    }
    for name in options.only:
        campaign.measure(name)
        for number in range(options.hits):
            campaign.hit(name, SIGNALS[number % 3])
        for _ in range(-(-options.hits // 10)):
            disk = rng.randrange(campaign.largest[name])
            campaign.refused("full disk", name, nullcontext(), disk=disk)
        data = read_only(COURSE / "data")
        campaign.refused("read-only data", name, data, locked=True)
        campaign.twice(name)
        write(campaign.table(options), options.no_table)
    if options.notebooks:  # these need all of the data
        shutil.rmtree(COURSE / "data")
        skip = shutil.ignore_patterns("runs")
        shutil.copytree(ROOT / "data", COURSE / "data", ignore=skip)
        campaign.before = contents()
    for name in options.notebooks:
        campaign.kernel(name)
        write(campaign.table(options), options.no_table)
    shutil.rmtree(COURSE.parent)
    total = sum(campaign.rows.values(), Counter())
    return int(any(total[word] for word in total if word != "tries"))


if __name__ == "__main__":
    sys.exit(main())
