"""`doctor`: can what a profile still has to download be downloaded?

Standard library only, as helpers.doctor.
"""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path

from helpers.doctor_probes import Check
from helpers.hub_models import revision_of
from helpers.profiles import SWITCHES, Profile, get_profile

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
