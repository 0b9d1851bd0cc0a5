"""Every loader against valid files that were damaged: a sentence, or success.

Never another exception, never a changed file. Hypothesis draws the same
examples in every run; a failure prints its bytes, and how to repeat it.
"""

import json
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from helpers import CourseError
from helpers.chat import encode_traces
from helpers.cli import environment
from helpers.files.cache import METADATA
from helpers.files.disk import read_json
from helpers.files.runs import last_checkpoint
from helpers.logit_cache import LogitCache, write_cache
from helpers.models import add_lora, load_adapter, load_teacher
from helpers.problems import load_problems
from helpers.profiles import DATA, PROFILES
from helpers.rebuild.half_results import halves_markdown, read_halves
from helpers.results import read_results, table_markdown
from helpers.traces import load_traces

EXAMPLES, FEW = 150, 40
ODD = [
    *(None, True, "", "x", "\ud800", "NaN", -1, 0.5, 10**30, 10**400, 1e308),
    *(float("nan"), float("inf"), [], {}, [[]], {"a": 1}, "<eos>", "9" * 5000),
]
NESTED = b'{"id": ' + b"[" * 50_000
BYTES = [
    *(b"", b"\r", b"\r\n", b"\n", b"\xef\xbb\xbf", b"\x00", b"\xff\xfe"),
    *(b"\xed\xa0\x80", "\u2028".encode(), b'"', b"{}", b"9" * 400, NESTED),
]
EDITS = st.tuples(
    st.sampled_from(("flip", "cut", "insert", "ends", "double", "value")),
    st.floats(0, 1, exclude_max=True),
    st.integers(0, 10_000),
)


def swapped(line: bytes, place: float, number: int) -> bytes:
    """A line of JSON with one of its values, at any depth, an odd one."""
    try:
        content = json.loads(line)
    except (ValueError, RecursionError):
        return line
    spots = [(content, key) for key in content] if content else []
    for inside, key in spots:
        part = inside[key]
        if isinstance(part, dict | list) and len(spots) < 999:
            keys = part if isinstance(part, dict) else range(len(part))
            spots += [(part, key) for key in keys]
    if spots:
        inside, key = spots[int(place * len(spots))]
        if number % 7 == 0 and isinstance(inside, dict):
            del inside[key]
        else:
            inside[key] = ODD[number % len(ODD)]
    return json.dumps(content).encode()


def damaged(content: bytes, edits: list[tuple[str, float, int]]) -> bytes:
    """The content after these edits, one after the other."""
    for kind, place, number in edits:
        at = int(place * len(content))
        if kind == "flip" and content:
            byte = bytes([content[at] ^ (1 + number % 255)])
            content = content[:at] + byte + content[at + 1 :]
        elif kind == "cut":
            content = content[:at]
        elif kind == "insert":
            bit = BYTES[number % len(BYTES)]
            content = content[:at] + bit + content[at:]
        elif kind == "ends":
            content = content.replace(b"\n", BYTES[number % 4])
        elif kind == "double":
            content = content[at:] + content
        elif content.lstrip().startswith(b"{"):  # a line, or one JSON object
            lines = content.splitlines(keepends=True)
            if len(lines) > 1 and not lines[0].endswith(b"}\n"):
                content = swapped(content, place, number)
            else:
                which = number % len(lines)
                lines[which] = swapped(lines[which], place, number) + b"\n"
                content = b"".join(lines)
    return content


def survives(path: Path, load: Callable[[], Any], examples: int) -> None:
    """`load` after any damage to `path`: success, or a CourseError."""
    whole = path.read_bytes()
    outcomes = []

    @settings(
        max_examples=examples,
        deadline=None,
        derandomize=True,
        database=None,
        print_blob=True,
        suppress_health_check=list(HealthCheck),
    )
    @given(st.lists(EDITS, max_size=3))
    def attempt(edits: list[tuple[str, float, int]]) -> None:
        content = damaged(whole, edits)
        path.write_bytes(content)
        try:
            load()
            outcomes.append("read")
        except CourseError as error:
            assert str(error).strip() and len(str(error)) < 20_000
            outcomes.append("refused")
        assert path.read_bytes() == content

    try:
        attempt()
    finally:
        path.write_bytes(whole)
    print(path.name, {word: outcomes.count(word) for word in set(outcomes)})
    assert outcomes.count("refused") > examples / 9
    assert "read" in outcomes


def put(content: bytes, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


RESULTS = DATA / "results"
TRACES = PROFILES["mini"].traces_path
PROBLEMS = DATA / "problems" / "train.jsonl"
LOADERS = {
    "traces": (TRACES, 4, load_traces),
    "train": (PROBLEMS, 12, partial(load_problems, split="train")),
    "test": (PROBLEMS, 12, partial(load_problems, split="test")),
    "results": (
        RESULTS / "mini-student_after-seed7.json",
        None,
        lambda path: table_markdown(read_results(path.parent)),
    ),
    "half results": (
        RESULTS / "half_gemma" / "logits-32-seed7.json",
        None,
        lambda path: halves_markdown(read_halves(path.parent)),
    ),
}


@pytest.mark.parametrize("kind", LOADERS)
def test_what_is_shipped_survives(tmp_path, kind):
    """Its first lines, or all of it."""
    shipped, lines, load = LOADERS[kind]
    content = shipped.read_bytes().splitlines(keepends=True)[:lines]
    path = put(b"".join(content), tmp_path / shipped.name)
    survives(path, partial(load, path), EXAMPLES)


def test_environment_survives(tmp_path, monkeypatch):
    monkeypatch.setattr(environment, "REPOSITORY", tmp_path)
    shipped = DATA.parent / "environment.yml"
    path = put(shipped.read_bytes(), tmp_path / "environment.yml")
    survives(path, environment.read_pip_list, EXAMPLES)


def test_run_record_survives(tmp_path):
    path = put(b'{\n "rank": 4,\n "seed": 7\n}\n', tmp_path / "run.json")
    survives(path, partial(read_json, path), EXAMPLES)


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fuzz") / "cache"
    write_cache(
        tiny.traces(2), tiny.teacher(), folder, max_length=320, k=4,
        tokenizer=tiny.tokenizer(tiny.TEACHER),
    )  # fmt: skip
    return folder


def test_cache_survives(cache):
    (path,) = cache.iterdir()
    survives(path, partial(LogitCache, cache), EXAMPLES)


def test_cache_of_odd_settings_survives(cache, tmp_path):
    """Its bytes are whole; what its metadata says is not."""
    (shard,) = cache.iterdir()
    cache = shutil.copytree(cache, tmp_path / "cache")
    with safe_open(shard, "pt") as tensors:
        about = tensors.metadata()[METADATA].encode()
    text, tensors = put(about, tmp_path / "about"), load_file(shard)
    readers = tiny.traces(2), tiny.tokenizer(tiny.TEACHER)
    rows = encode_traces(*readers, max_length=320)[0].to_list()

    def load() -> None:
        said = text.read_bytes().decode(errors="replace")
        save_file(tensors, cache / shard.name, {METADATA: said})
        LogitCache(cache).check_rows(rows)

    survives(text, load, EXAMPLES)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["adapter_config.json", "adapter_model.safetensors"]
)
def test_adapter_survives(tmp_path, name):
    student = str(tiny.folder(tiny.SMALL))
    plain = partial(load_teacher, PROFILES["mini"], student)
    add_lora(plain(), rank=2).model.save_pretrained(tmp_path)
    path = tmp_path / name

    def load() -> None:
        config = tmp_path / "adapter_config.json"
        size = path.read_bytes()
        if name == config.name and b"999" in size:
            raise CourseError("a size that this machine does not have")
        torch.manual_seed(0)
        load_adapter(plain(), tmp_path)

    survives(path, load, FEW)


@pytest.mark.parametrize("name", ["optimizer.pt", "model.safetensors"])
def test_checkpoint_survives(tmp_path, name):
    """One that cannot be read goes, and an older one is taken."""
    whole = tmp_path / name
    weights = {"a": torch.arange(9.0)}
    torch.save(weights, whole) if name[0] == "o" else save_file(weights, whole)

    def load() -> None:
        folder = tmp_path / "resume" / "checkpoint-3"
        shutil.rmtree(folder, ignore_errors=True)
        put(b'{"global_step": 3}', folder / "trainer_state.json")
        shutil.copy(whole, folder)
        if last_checkpoint(folder.parent) is None:
            raise CourseError("refused")
        part = folder / name
        assert torch.load(part) if name[0] == "o" else load_file(part)

    survives(whole, load, EXAMPLES)
