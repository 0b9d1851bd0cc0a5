"""`python3 -m helpers doctor`: is this machine ready? One line a check.

It imports the standard library alone, so that it also runs, and says what to
do, where the environment does not exist yet.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from helpers.cli import environment
from helpers.cli.commands import command_parser
from helpers.cli.environment import REPOSITORY, SetupError
from helpers.profiles import (
    HUB,
    SWITCHES,
    Profile,
    get_profile,
    megabytes_of,
    revision_of,
)
from helpers.scale.planner import (
    GIB,
    PROMPT,
    PlanError,
    load_shape,
    plan_memory,
)

GPU_GIB = 24
SUBPROCESS_SECONDS = 180

NO_GPU = "no GPU"
TORCH = f"""
import torch
seen = torch.cuda.is_available()
print("\\n" + (torch.cuda.get_device_name() if seen else "{NO_GPU}"))
"""
UNSLOTH = """
import torch, unsloth
where = "CUDA" if torch.cuda.is_available() else "CPU"
print(f"\\n{unsloth.__version__}, {where} backend")
"""
FOUR_BIT = """
import torch, helpers
from bitsandbytes.functional import dequantize_4bit, quantize_4bit
torch.manual_seed(0)
device = "cuda" if torch.cuda.is_available() else "cpu"
matrix = torch.randn(64, 64).to(device)
small, state = quantize_4bit(matrix, quant_type="nf4")
error = (dequantize_4bit(small, state) - matrix).abs().mean().item()
assert small.numel() * 2 == matrix.numel() and error < 0.15, error
where = {"cuda": "GPU", "cpu": "CPU"}[device]
print(f"\\n64x64 to NF4 and back on the {where}, mean error {error:.3f}")
"""


class Check(NamedTuple):
    """One line: OK, INFO (worth knowing) or FAIL, which has a cure."""

    status: str
    name: str
    text: str
    cure: str = ""

    def __str__(self) -> str:
        line = f"{self.status:<5}{self.name:<19} {self.text}"
        return f"{line}. Cure: {self.cure}." if self.cure else line


def gpu_check(profile: str) -> Check:
    """Only full needs a GPU; one that is to be used, torch must see."""
    if environment.has_nvidia_gpu():
        return listed_gpu_check(profile)
    if profile == "full":
        cure = f"a machine with a {GPU_GIB} GB GPU, or a smaller profile"
        return Check("FAIL", "NVIDIA GPU", "none was found", cure)
    return Check("INFO", "NVIDIA GPU", "none, the CPU does the work")


def listed_gpu_check(profile: str) -> Check:
    """Does torch see the GPU that nvidia-smi lists? mini does not ask."""
    torch = environment.installed_version("torch")
    if profile == "mini" or torch is None:  # then there is no environment
        return Check("OK", "NVIDIA GPU", "nvidia-smi lists one")
    worked, last = last_line_of(TORCH)
    if worked and last != NO_GPU:
        return Check("OK", "NVIDIA GPU", f"torch {torch} sees {last}")
    text = f"nvidia-smi lists one, but torch {torch} does not see it"
    text += "" if worked else f" ({last})"
    cure = (
        f"install the build of torch {torch.split('+')[0]} for your driver's "
        "CUDA (`nvidia-smi` names its version, "
        "https://pytorch.org/get-started/locally has the command)"
    )
    return Check("FAIL", "NVIDIA GPU", text, cure)


def unsloth_check() -> Check:
    """Can Unsloth be imported? If not, transformers + PEFT take its place."""
    worked, text = last_line_of(UNSLOTH)
    if worked:
        return Check("OK", "Unsloth", text)
    text = f"cannot load ({text}), transformers + PEFT are used instead"
    return Check("INFO", "Unsloth", text)


def four_bit_check() -> Check:
    """Can bitsandbytes quantize to 4 bits on this machine?"""
    worked, text = last_line_of(FOUR_BIT)
    if worked:
        return Check("OK", "4-bit", text)
    cure = f"`{sys.executable} -m pip install --force-reinstall bitsandbytes`"
    return Check("FAIL", "4-bit", text, cure)


def last_line_of(code: str) -> tuple[bool, str]:
    """Run code in a Python of its own; return (worked, its last line)."""
    try:
        done = subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            timeout=SUBPROCESS_SECONDS,
            cwd=REPOSITORY,
        )
    except subprocess.TimeoutExpired:
        return False, f"no answer within {SUBPROCESS_SECONDS} s"
    worked = done.returncode == 0
    lines = (done.stdout if worked else done.stderr).strip().splitlines()
    return worked, lines[-1] if lines else f"exit status {done.returncode}"


ADDRESS = "https://huggingface.co"
SECONDS = {"mini": 3, "laptop": 5, "full": 5}  # to answer within


def hub_check(profile: str, address: str | None = None) -> Check:
    """Is the hub reachable? An error where a download is still to come."""
    address = address or os.environ.get("HF_ENDPOINT") or ADDRESS
    if profile == "mini":
        if answers(address, SECONDS[profile]):
            return Check("INFO", "hub", f"{address} answers")
        text = f"{address} does not answer, the mini profile does not need it"
        return Check("INFO", "hub", text)
    missing = missing_downloads(get_profile(profile))
    if missing and switched_off():
        text = f"HF_HUB_OFFLINE forbids to download {', '.join(missing)}"
        return Check("FAIL", "hub", text, "unset HF_HUB_OFFLINE")
    if answers(address, SECONDS[profile]):
        return Check("INFO", "hub", f"{address} answers")
    text = f"{address} does not answer"
    if not missing:
        text += ", but all that the profile needs from it is in the cache"
        return Check("INFO", "hub", text)
    cure = (
        "connect to the network (behind a proxy, set HTTPS_PROXY), name "
        "local folders as in DISTILL_STUDENT=/models/mine, or use the "
        "profile mini"
    )
    text += f", and these are not in the cache: {', '.join(missing)}"
    return Check("FAIL", "hub", text, cure)


def answers(address: str, seconds: float) -> bool:
    """Does anything answer there in time?"""
    found: list[bool] = []

    def ask() -> None:
        from urllib.request import Request, urlopen

        try:
            with urlopen(Request(address, method="HEAD"), timeout=seconds):
                found.append(True)
        except (OSError, ValueError):
            pass

    # In a thread, because a look-up of the name knows no time limit.
    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(seconds)
    return bool(found)


def switched_off() -> bool:
    """Did the user forbid downloads? Read as huggingface_hub reads it."""
    text = os.environ.get("HF_HUB_OFFLINE", "").lower()
    return text == "on" or SWITCHES.get(text, False)


def missing_downloads(profile: Profile) -> list[str]:
    """The hub ids of a profile that are not whole in the local cache."""
    models = [profile.teacher, profile.student]
    models += [profile.kd_teacher, profile.kd_student]
    missing = [n for n in models if not is_local(n) and not model_cached(n)]
    data = profile.problems
    if data != "mini" and not is_local(data) and not data_cached(data):
        missing.append(data)
    return list(dict.fromkeys(missing))


def is_local(name: str) -> bool:
    """A file or folder here rather than a hub id."""
    path = Path(name)
    return path.is_absolute() or path.suffix == ".jsonl" or path.is_dir()


def cache_folder(variable: str, name: str) -> Path:
    """Where huggingface_hub, or datasets, keeps what it has fetched."""
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    home = os.environ.get("HF_HOME") or Path(cache, "huggingface")
    return Path(os.environ.get(variable) or Path(home, name)).expanduser()


def model_cached(name: str) -> bool:
    """Are the configuration, the tokenizer and all weights there?"""
    cache = cache_folder("HF_HUB_CACHE", "hub")
    folder = cache / f"models--{name.replace('/', '--')}"
    try:
        revision = revision_of(name) or read(folder / "refs" / "main")
        snapshot = folder / "snapshots" / revision
        return all((snapshot / file).is_file() for file in files_of(snapshot))
    except (OSError, ValueError, KeyError):
        return False


def files_of(snapshot: Path) -> set[str]:
    """What a model needs to load; large weights come in several files."""
    index = snapshot / "model.safetensors.index.json"
    weights = {"model.safetensors"}
    if index.is_file():
        weights = set(json.loads(read(index))["weight_map"].values())
    return {"config.json", "tokenizer_config.json"} | weights


def data_cached(name: str) -> bool:
    """Has `datasets` prepared these problems already?"""
    folder = cache_folder("HF_DATASETS_CACHE", "datasets")
    prepared = folder / name.replace("/", "___").lower()
    revision = revision_of(name) or "*"
    return any(prepared.glob(f"main/*/{revision}/dataset_info.json"))


def read(path: Path) -> str:
    """A small text file of the cache."""
    return path.read_text(encoding="utf-8").strip()


# A batch that is no setting of its own: the setting that makes it smaller.
SET_BY = {"teacher_batch": "teacher_evaluation_batch"}
WIDE = {"float32": 32, "bfloat16": 16, "float16": 16}
SPARE = 1.0  # GiB for the libraries and CUDA's own context


def gpu_memory_gib() -> float | None:
    """Memory of the first GPU by nvidia-smi; None where there is none."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return None
    command = [program, "--query-gpu=memory.total"]
    command += ["--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=10
        )
        return int(done.stdout.splitlines()[0]) / 1024
    except (OSError, ValueError, IndexError, subprocess.TimeoutExpired):
        return None


def phases(profile: Profile) -> list[tuple[str, str, str, dict[str, Any]]]:
    """(phase, model, setting of its batch, options of `plan_memory`)."""
    bits = 4 if profile.load_in_4bit else WIDE[profile.dtype]
    training = {
        "bits": bits,
        "rank": profile.rank,
        "length": profile.max_length,
        "checkpointing": profile.gradient_checkpointing,
    }
    asking = {
        "method": "generate",
        "length": PROMPT + profile.max_new_tokens,
        "bits": bits,
    }
    teacher_bits = 4 if profile.teacher_in_4bit else WIDE[profile.dtype]
    taught = asking | {"bits": teacher_bits}
    pair = {"teacher": profile.kd_teacher, "teacher_bits": teacher_bits}
    whole = training | pair | {"method": "logit"}
    chunks = whole | {"method": "logit_chunked", "chunk": profile.kd_chunk}
    student, kd = profile.student, profile.kd_student
    found = [
        ("traces", profile.teacher, "generation_batch", taught),
        ("training", student, "batch_size", training),
        ("evaluation", student, "evaluation_batch", asking),
        ("evaluation, teacher", profile.teacher, "teacher_batch", taught),
        ("evaluation, pair", kd, "teacher_batch", asking),
    ]
    if profile.kd_chunk:
        found.append(("logits, chunked", kd, "kd_batch_size", chunks))
    return [*found, ("logits, at once", kd, "kd_batch_size", whole)]


def measure_phase(
    profile: Profile, model: str, setting: str, options: dict[str, Any]
) -> Callable[[int], float]:
    """GiB that a phase needs, as a function of its rows at once.

    Raises PlanError for a model that cannot be planned.
    """
    shape, options = load_shape(model), dict(options)
    if "teacher" in options:
        options["teacher"] = load_shape(options["teacher"])

    def needs(rows: int) -> float:
        return plan_memory(shape, batch=rows, **options).total / GIB + SPARE

    return needs


Line = tuple[str, str, str, str]  # status, name, text, cure


def fit_lines(profile: Profile, available: float | None) -> Iterator[Line]:
    """A line for each phase; available: GiB, None where there is no GPU."""
    for name, model, setting, options in phases(profile):
        rows = getattr(profile, setting)
        if setting == "kd_batch_size":
            rows = min(rows, profile.batch_size)  # as `pair_profile` does
        try:
            needs = measure_phase(profile, model, setting, options)
            gib = needs(rows)
        except PlanError as error:
            yield "INFO", name, str(error).rstrip("."), ""
            continue
        text = f"{gib:.1f} GiB at most (estimated)"
        if available is None:
            yield "INFO", name, f"{text}, of a GPU", ""
        elif gib <= available:
            yield "OK", name, f"{text}, {available:.1f} are there", ""
        else:
            text += f", {available:.1f} are there"
            fitting = [n for n in range(rows, 0, -1) if needs(n) <= available]
            yield too_large(profile, name, text, setting, fitting)


def too_large(
    profile: Profile, name: str, text: str, setting: str, fitting: list[int]
) -> Line:
    """What to do about a phase that does not fit."""
    if name == "logits, at once":  # one arm of several, none of the mission
        text += "; the cached, mixed and feature arms need that"
        return "INFO", name, text, "a shorter DISTILL_MAX_LENGTH for these"
    if not fitting:
        cure = "use a smaller profile or model, or a larger GPU"
        return "FAIL", name, text, cure
    typed = SET_BY.get(setting, setting).upper()
    cure = f"DISTILL_{typed}={fitting[0]}"
    if setting == "batch_size":
        step = profile.batch_size * profile.gradient_accumulation
        more = -(-step // fitting[0])
        cure += f" with DISTILL_GRADIENT_ACCUMULATION={more}"
    return "FAIL", name, text, f"{cure} fits"


def hub_lines(profile: Profile) -> Iterator[Line]:
    """What has to be downloaded, under which licence, and what is gated."""
    named = [profile.teacher, profile.student, profile.problems]
    named += [profile.kd_teacher, profile.kd_student]
    if any(name in HUB for name in named):
        size = megabytes_of(named) / 1000
        yield "INFO", "downloads", f"{size:.1f} GB from the hub, once", ""
    for name in dict.fromkeys(named):
        if name in HUB:
            text = f"{name}: {HUB[name].licence}"
            yield "INFO", "licence", text, ""
        elif name.startswith("google/gemma"):
            cure = (
                f"accept its licence on huggingface.co/{name} and log in "
                f"with `hf auth login`, or use unsloth/{Path(name).name}"
            )
            yield "INFO", "gated", name, cure


MODELS = REPOSITORY / "data" / "models"
RUNS = REPOSITORY / "data" / "runs"
MINI_MODELS = ("mini-qwen3", "mini-qwen3-small", "mini-gemma3")
MEMORY_GIB = {"mini": 4, "laptop": 16, "full": 16}
DISK_GIB = {"mini": 1, "laptop": 15, "full": 30}
MAKE = "`python3 -m helpers run` makes it and then runs the course"


def main(argv: list[str]) -> int:
    """Print every check; 1 if one fails."""
    parser = command_parser("doctor", "check this machine, one line a check")
    options = parser.parse_args(argv)
    failed = 0
    for check in all_checks(options.profile):
        print(check, flush=True)
        failed += check.status == "FAIL"
    print(f"\n{failed} FAIL" if failed else "\nAll is well.")
    return 1 if failed else 0


def all_checks(profile: str) -> Iterator[Check]:
    """Yield the checks one by one, the quick ones first.

    The slow ones, which import the libraries, run meanwhile.
    """
    ready = environment.find() is not None
    with ThreadPoolExecutor(3) as pool:
        hub = pool.submit(hub_check, profile)
        slow = [unsloth_check, four_bit_check] if ready else []
        running = [pool.submit(check) for check in slow]
        yield python_check()
        yield memory_check(profile)
        yield disk_check(profile)
        yield writing_check(RUNS)
        yield gpu_check(profile)
        yield from model_checks(profile)
        yield from fit_checks(profile)
        yield hub.result()
        if not ready:
            yield Check("FAIL", "environment", "it is not made yet", MAKE)
            return
        yield Check("OK", "environment", sys.prefix)
        yield from package_checks()
        yield widgets_check(Path(sys.prefix))
        for check in running:
            yield check.result()


def python_check() -> Check:
    """Do the pinned packages exist for this Python?"""
    version = sys.version.split()[0]
    try:
        environment.check_python((sys.version_info[0], sys.version_info[1]))
    except SetupError as error:
        reason, _, cure = str(error).partition(". ")
        return Check("FAIL", "Python", reason, cure.rstrip("."))
    return Check("OK", "Python", f"{version} ({sys.executable})")


def memory_check(profile: str) -> Check:
    """Is there as much memory as the profile needs?"""
    total = total_memory_gib()
    if total is None:
        return Check("INFO", "memory", "its size cannot be read here")
    needed = MEMORY_GIB[profile]
    text = f"{total:.1f} GiB, the profile {profile} needs {needed}"
    if total < 0.9 * needed:  # a machine sold as 4 GB shows less
        cure = (
            "use a smaller profile"
            if profile != "mini"
            else ("use a machine with more memory, or a free notebook service")
        )
        return Check("FAIL", "memory", text, cure)
    return Check("OK", "memory", text)


def total_memory_gib() -> float | None:
    """Return the size of the memory; None where it cannot be read."""
    try:
        import psutil

        return psutil.virtual_memory().total / 2**30
    except ImportError:
        pass
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    except (AttributeError, ValueError, OSError):
        return None


def disk_check(profile: str) -> Check:
    """Is there as much free disk as the profile needs?"""
    free = shutil.disk_usage(REPOSITORY).free / 2**30
    needed = DISK_GIB[profile]
    text = f"{free:.1f} GiB free, the profile {profile} needs {needed}"
    if free < needed:
        return Check("FAIL", "disk", text, f"free some, data/runs is {RUNS}")
    return Check("OK", "disk", text)


def writing_check(folder: Path) -> Check:
    """Can the results of a run be written?"""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=folder) as file:
            file.write(b"x")
            file.flush()
    except OSError as error:
        cure = "make the folder yours, or clone the course where you may write"
        return Check("FAIL", "write data/runs", str(error), cure)
    return Check("OK", "write data/runs", "a file was written and removed")


def fit_checks(profile: str) -> Iterator[Check]:
    """Would every phase fit, and what is to be fetched for it?"""
    if profile == "mini":
        return
    settings = get_profile(profile)
    gpu = gpu_memory_gib()
    if gpu is None and profile != "full":
        gpu = total_memory_gib()
    for line in (*fit_lines(settings, gpu), *hub_lines(settings)):
        yield Check(*line)


def model_checks(profile: str) -> Iterator[Check]:
    """Are the weights of the mini models here, and whole?"""
    for name in MINI_MODELS:
        path = MODELS / name / "model.safetensors"
        if path.is_file() and path.stat().st_size > 100_000:
            size = path.stat().st_size / 1e6
            yield Check("OK", name, f"{size:.1f} MB of weights")
        elif profile == "mini":
            cure = (
                "`git checkout -- data/models` brings it back, "
                "`python3 -m helpers minilab` trains it anew"
            )
            yield Check("FAIL", name, f"no whole {path.name} in it", cure)
        else:
            text = f"not here, the profile {profile} does not need it"
            yield Check("INFO", name, text)


def package_checks() -> Iterator[Check]:
    """Compare every package with its pin."""
    path = REPOSITORY / "environment.yml"
    pins = environment.split_pins(environment.read_pip_list(path))
    for pin in pins.ordinary + pins.unsloth:
        name, _, wanted = pin.partition("==")
        version = environment.installed_version(name)
        if environment.meets_pin(pin):
            yield Check("OK", name, f"{version}")
            continue
        text = f"{version or 'not installed'}, the pin is {wanted}"
        alone = "--no-deps " if pin in pins.unsloth else ""
        cure = f"`{sys.executable} -m pip install {alone}{pin}`"
        yield Check("FAIL", name, text, cure)


def widgets_check(prefix: Path) -> Check:
    """Does JupyterLab find the part of ipywidgets that draws sliders?"""
    folder = prefix / "share" / "jupyter" / "labextensions"
    if (folder / "@jupyter-widgets" / "jupyterlab-manager").is_dir():
        return Check("OK", "widgets", "JupyterLab has the widget manager")
    cure = (
        f"`{sys.executable} -m pip install --force-reinstall --no-deps "
        "jupyterlab_widgets`"
    )
    return Check("FAIL", "widgets", f"no widget manager in {folder}", cure)
