"""`helpers run` on small notebooks made for the purpose."""

import base64
import io
import os
import signal
import subprocess
import sys
import time
from functools import partial
from itertools import chain
from pathlib import Path

import nbformat
import psutil
import pytest
from nbformat.v4 import new_code_cell as code
from nbformat.v4 import new_markdown_cell, new_notebook, new_output
from PIL import Image, ImageChops
from waiting import wait_until

from helpers import CourseError
from helpers.cli import main as entry
from helpers.cli import run as runner
from helpers.cli.run import WIDGET, clean_notebook, find_notebooks

START = """
import pathlib, signal, sys
from helpers.cli import main as entry
from helpers.cli import environment, run
environment.ensure = lambda: sys.executable
run.NOTEBOOKS, run.RUNS = pathlib.Path({!r}), pathlib.Path({!r})
signal.signal(signal.SIGTERM, lambda *_: sys.exit(entry.TERMINATED))
sys.exit(entry.main(["run"]))
"""


@pytest.fixture
def course(tmp_path, monkeypatch):
    """An empty course; returns a function that adds a notebook to it."""
    clean = partial(clean_notebook, repository=tmp_path)
    monkeypatch.setattr(runner, "clean_notebook", clean)
    monkeypatch.setattr(entry.environment, "ensure", lambda: sys.executable)
    monkeypatch.setattr(os, "environ", os.environ.copy())
    monkeypatch.setattr(runner, "NOTEBOOKS", tmp_path / "notebooks")
    monkeypatch.setattr(runner, "RUNS", tmp_path / "data" / "runs")

    def add(name: str, *sources: str) -> Path:
        cells = [code(source) for source in sources]
        notebook = new_notebook(cells=[new_markdown_cell("# One"), *cells])
        # A kernel that exists nowhere: run must use this Python all the same.
        notebook.metadata["kernelspec"] = {"name": "gone", "display_name": "?"}
        path = tmp_path / "notebooks" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        nbformat.write(notebook, path)
        return path

    return add


def outputs(path: Path) -> str:
    cells = nbformat.read(path, as_version=4).cells
    shown = chain.from_iterable(cell.get("outputs", []) for cell in cells)
    return "".join(output.get("text", "") for output in shown)


@pytest.mark.slow
def test_run_executes_in_order_and_keeps_the_originals(course, capsys):
    """The kernels get profile and seed, and where the results go."""
    names = "'PROFILE', 'SEED', 'RESULTS_DIR'"
    second = course(
        "01_b.ipynb",
        "import os\nprint(open('mark').read())",
        f"for name in ({names}): print(os.environ['DISTILL_' + name])",
    )
    course("00_a.ipynb", "print(open('mark', 'w').write('first'))")
    course("solutions/00_a.ipynb", "1 / 0")
    before = second.read_bytes()
    assert entry.main(["run", "--profile=laptop", "--seed=3"]) == 0
    assert second.read_bytes() == before
    copies = runner.RUNS / "notebooks"
    words = outputs(copies / "01_b.ipynb").replace("\\", "/").split()
    assert words == ["first", "laptop", "3", "./data/runs/results"]
    text = capsys.readouterr().out
    assert "No results yet" in text and str(copies) in text


@pytest.mark.slow
def test_in_place_until_a_cell_fails(course, tmp_path, capsys):
    names = "os.getcwd(), os.environ['DISTILL_RESULTS_DIR']"
    first = course("00_a.ipynb", f"import os\nprint({names})", "1 + 1")
    path = course("01_b.ipynb", "x = 1", "y = {}\ny['absent']", "x = 2")
    course("02_c.ipynb", "print('never')")
    before = path.read_bytes()
    assert runner.main(["--in-place"]) == 1
    places = outputs(first).replace("\\", "/")
    assert places == "./notebooks ./data/runs/results\n"
    text = first.read_text(encoding="utf-8")
    assert str(tmp_path) not in text and "iopub" not in text
    assert path.read_bytes() == before
    text = capsys.readouterr().out
    assert "01_b.ipynb, cell 3 of 4 failed" in text
    assert "y = {}\ny['absent']\n" in text
    assert "KeyError: 'absent'" in text and "\x1b[" not in text
    copies = os.listdir(runner.RUNS / "notebooks")
    assert sorted(copies) == ["00_a.ipynb", "01_b.ipynb"]


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
    for name in ("A1_z", "03_c", "00_a", "draft", "solutions/03_c"):
        course(f"{name}.ipynb")
    folder = runner.NOTEBOOKS
    names = [path.stem for path in find_notebooks(folder, [])]
    assert names == ["00_a", "03_c", "A1_z"]
    chosen = find_notebooks(folder, ["A1", "00"])
    assert [path.stem for path in chosen] == ["00_a", "A1_z"]
    with pytest.raises(CourseError, match="'09'.*00_a, 03_c, A1_z"):
        find_notebooks(folder, ["09"])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("/srv/ada/course/data/x.json", "./data/x.json"),
        ("in /srv/ada/course, or", "in ., or"),
        ("one\n/srv/ada/course/x\n", "one\n./x\n"),
        ("/srv/ada/course-old/x", "~/course-old/x"),
        ("/srv/adam/x", "/srv/adam/x"),
        ("https://host/srv/ada/course", "https://host/srv/ada/course"),
        ("'/srv/ada/notes'", "'~/notes'"),
        ("/tmp/ipykernel_12/345.py:1: Warning", "<cell>:1: Warning"),
    ],
)
def test_clean_notebook_shortens_private_folders(text, expected):
    cell = code("x")
    cell.outputs = [new_output("error", ename="E", traceback=[text])]
    home, notebook = Path("/srv/ada"), new_notebook(cells=[cell])
    cleaned = clean_notebook(notebook, repository=home / "course", home=home)
    assert cleaned.cells[0].outputs[0].traceback == [expected]


def test_clean_notebook_drops_noise_and_keeps_large_pictures():
    picture = new_output("display_data", {"image/png": "A" * 10**6})
    view = new_output("display_data", {WIDGET: {"model_id": "1"}})
    cell = code("x", outputs=[view, picture])
    notebook = new_notebook(cells=[cell], metadata={"widgets": {}, "k": 1})
    started = time.perf_counter()
    cleaned = clean_notebook(notebook)
    assert time.perf_counter() - started < 5  # a regex took minutes
    assert cleaned.metadata == {"k": 1}
    assert cleaned.cells[0].outputs == [picture]


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="sends a POSIX signal")
@pytest.mark.parametrize(
    ("name", "status"), [("SIGINT", 130), ("SIGTERM", 143), ("SIGKILL", -9)]
)
def test_interrupted_run_stops_its_kernel(course, name, status):
    course("00_a.ipynb", "open('busy', 'w')\nimport time\ntime.sleep(60)")
    start = START.format(str(runner.NOTEBOOKS), str(runner.RUNS))
    command = [sys.executable, "-c", start]
    child = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    wait_until((runner.NOTEBOOKS / "busy").exists, child)
    (kernel,) = psutil.Process(child.pid).children()
    child.send_signal(getattr(signal, name))
    _, text = child.communicate(timeout=20)
    assert child.returncode == status and "Traceback" not in text
    assert psutil.wait_procs([kernel], timeout=20)[0]  # itself, if killed


def test_pictures_get_a_palette():
    """Nearly the same; what is transparent, small, or no picture, stays."""

    def encoded(picture: Image.Image) -> str:
        buffer = io.BytesIO()
        picture.save(buffer, "PNG")
        return base64.b64encode(buffer.getvalue()).decode()

    full = Image.effect_noise((40, 30), 50).convert("RGBA")
    stored = runner.small(encoded(full))
    again = Image.open(io.BytesIO(base64.b64decode(stored)))
    assert again.mode == "P" and len(stored) < 0.6 * len(encoded(full))
    far = ImageChops.difference(again.convert("RGB"), full.convert("RGB"))
    assert max(high for _, high in far.getextrema()) <= 8
    full.putpixel((0, 0), (1, 2, 3, 0))
    for kept in (encoded(full), "no picture", stored):
        assert runner.small(kept) == kept
