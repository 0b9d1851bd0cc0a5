"""`helpers test`: its parts, its sum, and the end of what hangs."""

import os

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook

from helpers.cli import test as testing

INI = """
[tool.pytest.ini_options]
markers = ["real_weights", "browser"]
faulthandler_timeout = 4
faulthandler_exit_on_timeout = true
"""
GOOD = """
import time
import pytest

def test_good():
    pass

@pytest.mark.browser
def test_browser():
    pass
"""
BAD = """
def test_bad():
    assert 1 == 2

def test_later():
    pytest.skip("later")

@pytest.mark.real_weights
def test_real():
    raise OSError
"""
STUCK = """
def this_one_hangs():
    time.sleep(100)

this_one_hangs()
"""
HANGS = STUCK.replace("\n\nthis_one", "\n\ntest_it = lambda: this_one")


@pytest.fixture
def suite(tmp_path, monkeypatch, capsys):
    """A course with a notebook; give its test module, get what is printed."""
    for folder in ("tests", "helpers", "notebooks", "runs"):
        (tmp_path / folder).mkdir()
    (tmp_path / "tests" / "sanitize.cfg").write_text("")
    notebook = new_notebook(cells=[new_code_cell("1 + 1")])
    nbformat.write(notebook, tmp_path / "notebooks" / "03_a.ipynb")
    (tmp_path / "pyproject.toml").write_text(INI)
    monkeypatch.setattr(testing, "REPOSITORY", tmp_path)
    monkeypatch.setattr(testing, "RUNS", tmp_path / "runs")
    for name in ("DISTILL_RESULTS_DIR", "OMP_NUM_THREADS", "DISTILL_SEED"):
        monkeypatch.setenv(name, os.environ.get(name, ""))

    def run(text: str) -> tuple[int, str, list[str]]:
        (tmp_path / "tests" / "test_it.py").write_text(text)
        status = testing.main(["--no-real-weights"])
        out, err = capsys.readouterr()
        return status, err, out.splitlines()

    return run


@pytest.mark.slow
def test_main_runs_every_part_after_a_failure_and_adds_up(suite):
    (testing.REPOSITORY / "helpers" / "a.py").write_text("import os,sys\n")
    status, _, lines = suite(GOOD + BAD)
    assert status == 1 and lines[-1] == "1 failed, 3 passed, 1 skipped"
    assert any("assert 1 == 2" in line for line in lines)
    style = "".join(line for line in lines if line.startswith("style"))
    assert "Import block" in style and "would be reformatted" in style


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="Windows prints no stack")
@pytest.mark.parametrize("limit", [100, 8])
def test_main_names_what_hangs(suite, monkeypatch, limit):
    """A test has a limit of its own; the rest must end with everything."""
    monkeypatch.setattr(testing, "LIMIT", limit)
    unit = testing.all_parts()["unit"]
    parts = {"style": [], "unit": unit, "real": []}
    monkeypatch.setattr(testing, "all_parts", lambda: parts)
    status, err, lines = suite(GOOD + (HANGS if limit == 100 else STUCK))
    assert status == 1 and lines[-1] == "1 error"
    assert "unit hung or died" in err
    assert any("in this_one_hangs" in line for line in lines)


def test_parts_hold_every_notebook_once():
    parts = testing.all_parts()
    words = [w for part in parts.values() for words in part for w in words]
    books = (testing.REPOSITORY / "notebooks").glob("*.ipynb")
    assert sorted(w for w in words if ".ipynb" in w) == sorted(map(str, books))
