"""`helpers run` on small notebooks made for the purpose."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import psutil
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from helpers.cli import run as runner
from helpers.cli.run import (
    WIDGET,
    clean_notebook,
    clean_paths,
    save_notebook,
)


@pytest.fixture
def course(tmp_path, monkeypatch):
    """An empty course; returns a function that adds a notebook to it."""
    monkeypatch.setattr(runner, "REPOSITORY", tmp_path)
    monkeypatch.setattr(runner, "NOTEBOOKS", tmp_path / "notebooks")
    monkeypatch.setattr(runner, "RUNS", tmp_path / "data" / "runs")
    monkeypatch.setattr(runner, "PUBLISHED", tmp_path / "data" / "results")

    def add(name: str, *sources: str) -> Path:
        cells = [new_code_cell(source) for source in sources]
        notebook = new_notebook(cells=[new_markdown_cell("# One"), *cells])
        # A kernel that exists nowhere: run must use this Python all the same.
        notebook.metadata["kernelspec"] = {"name": "gone", "display_name": "?"}
        path = tmp_path / "notebooks" / name
        save_notebook(notebook, path)
        return path

    return add


def outputs(path: Path) -> str:
    notebook = nbformat.read(path, as_version=4)
    return "".join(
        output.get("text", "")
        for cell in notebook.cells
        for output in cell.get("outputs", [])
    )


@pytest.mark.slow
def test_run_executes_in_order_and_keeps_the_originals(course, capsys):
    second = course("01_b.ipynb", "print(open('mark').read())")
    course("00_a.ipynb", "print(open('mark', 'w').write('seen'))")
    course("solutions/00_a.ipynb", "1 / 0")
    before = second.read_bytes()
    assert runner.main([]) == 0
    copies = runner.RUNS / "notebooks"
    assert outputs(copies / "01_b.ipynb") == "seen\n"
    assert "seen" in (copies / "01_b.html").read_text(encoding="utf-8")
    assert second.read_bytes() == before
    text = capsys.readouterr().out
    assert "No results yet" in text and str(copies) in text
    (line,) = [line for line in text.splitlines() if line.startswith("01_b")]
    name, seconds, peak = line.split()
    assert 0 < float(seconds) < 100 and 20 < float(peak) < 2000


@pytest.mark.slow
def test_run_stops_at_the_first_failing_cell_and_shows_it(course, capsys):
    path = course("00_a.ipynb", "x = 1", "y = {}\ny['absent']", "x = 2")
    course("01_b.ipynb", "print('never')")
    before = path.read_bytes()
    assert runner.main(["--in-place"]) == 1
    text = capsys.readouterr().out
    assert "00_a.ipynb, cell 3 of 4 failed" in text
    assert "    y = {}\n    y['absent']\n" in text
    assert "KeyError: 'absent'" in text and "\x1b[" not in text
    assert path.read_bytes() == before
    assert (runner.RUNS / "notebooks" / "00_a.html").exists()
    assert not (runner.RUNS / "notebooks" / "01_b.ipynb").exists()


@pytest.mark.slow
def test_run_in_place_stores_clean_outputs(course, tmp_path):
    path = course("00_a.ipynb", "import os\nprint(os.getcwd())", "1 + 1")
    assert runner.main(["--in-place"]) == 0
    assert outputs(path) == "./notebooks\n"
    text = path.read_text(encoding="utf-8")
    assert str(tmp_path) not in text and "iopub" not in text
    assert os.listdir(path.parent) == ["00_a.ipynb"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "folder"),
    [([], "data/runs/results"), (["--in-place"], "data/results")],
)
def test_run_tells_the_kernels_profile_seed_and_where_results_go(
    course, tmp_path, options, folder
):
    course(
        "00_a.ipynb",
        "import os\nfor name in ('PROFILE', 'SEED', 'RESULTS_DIR'):\n"
        "    print(os.environ['DISTILL_' + name])",
    )
    assert runner.main([*options, "--profile=laptop", "--seed=3"]) == 0
    seen = outputs(runner.RUNS / "notebooks" / "00_a.ipynb").split()
    assert seen == ["laptop", "3", f"./{folder}"]


@pytest.mark.slow
def test_run_says_what_to_do_when_the_kernel_dies(course, capsys):
    course("00_a.ipynb", "import os\nos._exit(9)")
    assert runner.main([]) == 1
    text = capsys.readouterr().out
    assert "The kernel died" in text and "os._exit(9)" in text


def test_run_names_a_file_that_is_no_notebook(course, capsys):
    course("00_a.ipynb").write_text("<<<<<<< HEAD")
    assert runner.main([]) == 1
    assert "git checkout -- notebooks/00_a.ipynb" in capsys.readouterr().out


def test_find_notebooks_takes_prefixes_and_leaves_solutions_out(course):
    for name in ("A1_z.ipynb", "03_c.ipynb", "00_a.ipynb", "draft.ipynb"):
        course(name)
    course("solutions/03_c.ipynb")
    folder = runner.NOTEBOOKS
    names = [path.name for path in runner.find_notebooks(folder, [])]
    assert names == ["00_a.ipynb", "03_c.ipynb", "A1_z.ipynb"]
    chosen = runner.find_notebooks(folder, ["A1", "00"])
    assert [path.name for path in chosen] == ["00_a.ipynb", "A1_z.ipynb"]


def test_run_names_the_notebooks_when_a_prefix_matches_none(course, capsys):
    course("00_a.ipynb")
    assert runner.main(["--notebook", "09"]) == 2
    assert "begins with '09'. There are: 00_a." in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("/home/me/course/data/x.json", "./data/x.json"),
        ("in /home/me/course, or", "in ., or"),
        ("/home/me/course-old/x", "~/course-old/x"),
        ("/home/mela/x", "/home/mela/x"),
        ("https://host/home/me/course", "https://host/home/me/course"),
        ("'/home/me/notes'", "'~/notes'"),
        ("/tmp/ipykernel_12/345.py:1: Warning", "<cell>:1: Warning"),
    ],
)
def test_clean_paths_shortens_private_folders(text, expected):
    cleaned = clean_paths(
        text, repository=Path("/home/me/course"), home=Path("/home/me")
    )
    assert cleaned == expected


def test_clean_notebook_keeps_static_outputs_and_drops_noise():
    cell = new_code_cell(
        "x", metadata={"execution": {"t": "1"}, "tags": ["a"]}
    )
    cell.outputs = [
        nbformat.v4.new_output("display_data", {WIDGET: {"model_id": "1"}}),
        nbformat.v4.new_output("display_data", {"image/png": "AAAA"}),
        nbformat.v4.new_output("stream", text="/home/me/course/a\n"),
        nbformat.v4.new_output(
            "error", ename="E", evalue="e", traceback=["at /home/me/course/b"]
        ),
    ]
    notebook = new_notebook(cells=[cell], metadata={"widgets": {}, "k": 1})
    clean_notebook(
        notebook, repository=Path("/home/me/course"), home=Path("/home/me")
    )
    _, text, error = cell.outputs
    assert notebook.metadata == {"k": 1} and cell.metadata == {"tags": ["a"]}
    assert cell.outputs[0].data == {"image/png": "AAAA"}
    assert text.text == "./a\n" and error.traceback == ["at ./b"]


def test_save_notebook_leaves_the_old_file_when_the_disk_is_full(
    tmp_path, monkeypatch
):
    path = tmp_path / "a.ipynb"
    path.write_text("old")

    def full(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="cannot write a.ipynb"):
        save_notebook(new_notebook(), path)
    assert path.read_text() == "old" and os.listdir(tmp_path) == ["a.ipynb"]


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="sends a POSIX signal")
def test_run_interrupted_stops_the_kernel_without_a_traceback(course):
    course("00_a.ipynb", "open('busy', 'w')\nimport time\ntime.sleep(60)")
    code = (
        "import sys, pathlib; from helpers.cli import run as runner;"
        "from helpers import __main__ as entry;"
        "from helpers.cli import environment;"
        "environment.ensure = lambda: sys.executable;"
        f"runner.NOTEBOOKS = pathlib.Path({str(runner.NOTEBOOKS)!r});"
        f"runner.RUNS = pathlib.Path({str(runner.RUNS)!r});"
        "sys.exit(entry.main(['run']))"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", code], stderr=subprocess.PIPE, text=True
    )
    while not (runner.NOTEBOOKS / "busy").exists():
        assert child.poll() is None
        time.sleep(0.1)
    (kernel,) = psutil.Process(child.pid).children()
    child.send_signal(signal.SIGINT)
    _, text = child.communicate(timeout=20)
    assert child.returncode == 130
    assert "Interrupted." in text and "Traceback" not in text
    assert not kernel.is_running()
