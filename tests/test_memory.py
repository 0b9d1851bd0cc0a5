"""helpers.models: a peak that can be forgotten, and where it cannot."""

from __future__ import annotations

import pytest
import torch

from helpers import generate as memory
from helpers.models import peak_memory_mb, reset_peak

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def use(mebibytes: int) -> float:
    """Fill that much memory and give it back; the peak in MiB."""
    block = torch.ones(mebibytes * 2**18, device=DEVICE)
    assert block[-1] == 1
    return peak_memory_mb()


def test_reset_peak_forgets_what_was_given_back_alone():
    if not reset_peak():
        pytest.skip("this system keeps the peak of a process")
    before = use(512)
    assert reset_peak()
    after = peak_memory_mb()
    assert after < before - 400
    block = torch.ones(256 * 2**18, device=DEVICE)
    reset_peak()
    assert peak_memory_mb() > after + 200 and block[-1] == 1


@pytest.mark.skipif(DEVICE == "cuda", reason="the GPU keeps its own peak")
def test_peak_memory_falls_back_to_the_peak_of_the_process(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(memory, "PROCESS", tmp_path / "no-proc")
    assert reset_peak() is False
    before = use(256)
    assert before > 256
    (tmp_path / "no-proc").mkdir()
    status = tmp_path / "no-proc" / "status"
    status.write_text("VmRSS:   2048 kB\n")
    assert peak_memory_mb() >= before  # no VmHWM there
    status.write_text("VmHWM:   2048 kB\n")
    assert peak_memory_mb() == 2
