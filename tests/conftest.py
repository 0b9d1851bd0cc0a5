"""Set the switches before any test imports torch or huggingface_hub."""

import os
import signal
from collections.abc import Iterator
from typing import Any

import pytest

# The tests are offline and use the mini profile, whatever the shell says;
# importing helpers sets the rest (OMP_WAIT_POLICY and the like).
os.environ.setdefault("DISTILL_PROFILE", "mini")
os.environ["HF_HUB_OFFLINE"] = "1"
# A shell starts what it sends to the background deaf to Ctrl-C, and the
# children of such a process are deaf as well: some tests interrupt one.
signal.signal(signal.SIGINT, signal.default_int_handler)

import helpers  # noqa: E402, F401


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    """The figures that were shown, still open when they were."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figures: list[Any] = []
    monkeypatch.setattr(plt, "show", lambda: figures.append(plt.gcf()))
    yield figures
    assert plt.get_fignums() == []  # every figure is closed afterwards
