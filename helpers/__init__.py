"""The small package that the notebooks import.

Importing it sets the switches that only work when they are set before torch
and huggingface_hub are imported. It imports the standard library alone.
"""

from __future__ import annotations

import contextlib
import io
import json
import logging
import os
from collections.abc import Iterator

PROFILE_NAMES = ("mini", "laptop", "full")
DEFAULT_SEED = 7
_BEFORE_MINI = "DISTILL_BEFORE_MINI"  # what `mini` has replaced, as JSON


class CourseError(ValueError):
    """Something that the user can mend; the message says what and how.

    At the command line it is one sentence and exit status 2.
    """


def current_profile() -> str:
    """Return the name in DISTILL_PROFILE, or "mini" when it is not set."""
    return os.environ.get("DISTILL_PROFILE") or "mini"


def select_profile(name: str) -> None:
    """Make `name` the profile of this process and of those it starts.

    The mini profile is the same on every machine: it hides the GPUs, and
    switches the hub off unless HF_HUB_OFFLINE says otherwise. The other
    profiles put back what was set before.
    """
    os.environ["DISTILL_PROFILE"] = name
    before = json.loads(os.environ.pop(_BEFORE_MINI, "{}"))
    for variable, value in before.items():
        os.environ.pop(variable, None)
        os.environ.update({} if value is None else {variable: value})
    if name == "mini":
        offline = os.environ.get("HF_HUB_OFFLINE", "1")
        ours = {"HF_HUB_OFFLINE": offline, "CUDA_VISIBLE_DEVICES": "-1"}
        before = {variable: os.environ.get(variable) for variable in ours}
        os.environ.update(ours | {_BEFORE_MINI: json.dumps(before)})


def first_line(error: BaseException) -> str:
    """The first line of an error's text, its type where it has none."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Hold back what libraries print while they load; errors still rise."""
    library = logging.getLogger("transformers")
    level = library.level
    library.setLevel(logging.ERROR)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        library.setLevel(level)


# Without "passive", two torch threads that share a core with another program
# wait for each other and small steps take 75 times as long.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")
# On a Mac, Unsloth would put MLX in the place of torch and TRL.
os.environ.setdefault("UNSLOTH_FORCE_GPU_PATH", "1")
# bitsandbytes logs a missing optional package at its first import.
logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)
select_profile(current_profile())
