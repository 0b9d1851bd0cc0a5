"""The doctor's hub check: an error only where a download is to come."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from helpers.cli import doctor as doctor_hub
from helpers.cli.doctor import hub_check, missing_downloads
from helpers.profiles import HUB, PROFILES

NOBODY = "http://127.0.0.1:9"
LAPTOP = PROFILES["laptop"]


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> Path:
    """An empty cache of the hub, and downloads allowed."""
    for name in ("HF_HUB_CACHE", "HF_DATASETS_CACHE", "HF_HUB_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    return tmp_path


def keep(cache: Path, name: str, shards: int = 1) -> Path:
    """A model as huggingface_hub keeps it; returns its snapshot."""
    folder = cache / "hub" / f"models--{name.replace('/', '--')}"
    snapshot = folder / "snapshots" / HUB[name].revision
    snapshot.mkdir(parents=True)
    files = ["model.safetensors"]
    if shards > 1:
        files = [f"model-{n}-of-{shards}.safetensors" for n in range(shards)]
        index = json.dumps({"weight_map": {f: f for f in files}})
        (snapshot / "model.safetensors.index.json").write_text(index)
    for file in (*files, "config.json", "tokenizer_config.json"):
        (snapshot / file).write_text("x")
    return snapshot


def keep_all(cache: Path) -> None:
    for name in {LAPTOP.teacher, LAPTOP.student, LAPTOP.kd_teacher}:
        keep(cache, name, shards=1 + (name == LAPTOP.kd_teacher))
    prepared = cache / "datasets" / "openai___gsm8k" / "main" / "0.0.0"
    prepared = prepared / HUB["openai/gsm8k"].revision
    prepared.mkdir(parents=True)
    (prepared / "dataset_info.json").write_text("{}")


def test_hub_check_is_no_error_for_mini():
    check = hub_check("mini", NOBODY)
    assert check.status == "INFO" and not check.cure
    assert check.text.endswith("the mini profile does not need it")


@pytest.mark.parametrize("profile", ["laptop", "full"])
def test_hub_check_fails_where_a_download_cannot_come(profile):
    check = hub_check(profile, NOBODY)
    assert check.status == "FAIL" and "HTTPS_PROXY" in check.cure
    assert PROFILES[profile].student in check.text
    assert "mini profile" not in check.text


def test_hub_check_wants_no_hub_for_a_full_cache(cache):
    keep_all(cache)
    check = hub_check("laptop", NOBODY)
    assert check.status == "INFO" and "in the cache" in check.text


def test_hub_check_knows_that_downloads_are_forbidden(cache, monkeypatch):
    monkeypatch.setattr(doctor_hub, "answers", lambda address, seconds: True)
    assert hub_check("laptop").status == "INFO"
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    check = hub_check("laptop")
    assert check.status == "FAIL" and check.cure == "unset HF_HUB_OFFLINE"


def test_hub_check_asks_the_mirror_that_is_set(monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", NOBODY)
    assert hub_check("laptop").text.startswith(NOBODY)


def test_missing_downloads_name_each_id_once():
    assert missing_downloads(LAPTOP) == [
        LAPTOP.teacher,
        LAPTOP.student,
        LAPTOP.kd_teacher,
        LAPTOP.problems,
    ]
    assert missing_downloads(PROFILES["mini"]) == []


def test_missing_downloads_leave_local_folders_out(tmp_path):
    own = replace(
        LAPTOP,
        student="/models/my-gemma",
        kd_teacher=str(tmp_path),
        problems="mine.jsonl",
    )
    assert missing_downloads(own) == [LAPTOP.teacher]


def test_missing_downloads_want_every_file(cache):
    keep_all(cache)
    assert missing_downloads(LAPTOP) == []
    revision = HUB[LAPTOP.kd_teacher].revision
    (shard,) = cache.rglob(f"{revision}/model-1-of-2.safetensors")
    shard.unlink()  # the download was stopped
    assert missing_downloads(LAPTOP) == [LAPTOP.kd_teacher]
    shutil.rmtree(cache / "datasets")
    missing = missing_downloads(LAPTOP)
    assert missing == [LAPTOP.kd_teacher, LAPTOP.problems]


def test_missing_downloads_follow_the_branch_of_an_unpinned_model(cache):
    own = replace(LAPTOP, student="me/mine")
    keep_all(cache)
    assert missing_downloads(own) == ["me/mine"]
    folder = cache / "hub" / "models--me--mine"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text("abc")
    shutil.copytree(
        next((cache / "hub").glob("*270m*/snapshots/*")),
        folder / "snapshots" / "abc",
    )
    assert missing_downloads(own) == []
