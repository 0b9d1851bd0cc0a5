"""The sliders where people use them: in JupyterLab, in a real browser.

Needs Playwright (environment.yml) and a Chromium on this machine, for
instance `apt-get install chromium`; skipped with the reason elsewhere.
"""

import contextlib
import os
import secrets
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import nbformat
import pytest
from waiting import answers, free_port, wait_until

from helpers.cli.lab import NOTEBOOKS, lab_arguments, write_settings

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
FLAGS = (
    "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-sync "
    "--disable-background-networking --disable-component-update"
).split()
READY = """() => {
  const opened = window.jupyterapp?.shell.currentWidget;
  return opened?.sessionContext?.session?.kernel?.status === 'idle';
}"""  # before that, running all does nothing and calls it a success
RUN_ALL = """() => {
  const app = window.jupyterapp;
  window.ended = null;
  app.commands.execute('notebook:run-all-cells').then(
    fine => { window.ended = fine ? 'fine' : 'failed'; },
    error => { window.ended = String(error); });
}"""
RED = (
    '[data-mime-type="application/vnd.jupyter.error"], '
    '[data-mime-type="application/vnd.jupyter.stderr"]'
)
OUTPUT = (
    "ancestor::*[contains(concat(' ', @class, ' '), "
    "' jp-OutputArea-output ')][1]"
)
LAST_CELL = {  # the rest takes minutes; in 06 a slider like 03's and 05's too
    "06_feature_distillation": "explorer.show()",
    "07_on_policy_distillation": "slider.show()",
}
RUN_SECONDS, POINT_SECONDS = 600, 180

pytestmark = [pytest.mark.browser, pytest.mark.slow]


@pytest.fixture(scope="module")
def browser() -> Iterator[object]:
    playwright = pytest.importorskip(
        "playwright.sync_api", reason="Playwright is not installed"
    )
    paths = [shutil.which(name) for name in BROWSERS]
    path = next((found for found in paths if found), None)
    if path is None:
        pytest.skip("no Chromium here: apt-get install chromium")
    with playwright.sync_playwright() as started:
        chromium = started.chromium.launch(executable_path=path, args=FLAGS)
        yield chromium
        chromium.close()


@pytest.fixture(scope="module")
def lab(tmp_path_factory) -> Iterator[str]:
    """JupyterLab over copies of the notebooks; gives its address.

    To fill in: a workspace, as one restores what was open in it, and a path.
    """
    place = tmp_path_factory.mktemp("lab")
    copy_without_outputs(place / "notebooks")
    settings = place / "settings"
    write_settings(settings)
    tracker = settings / "@jupyterlab" / "notebook-extension"
    tracker.mkdir(parents=True)
    (tracker / "tracker.jupyterlab-settings").write_text(
        '{"windowingMode": "none"}'  # every cell is in the page
    )
    port = free_port()
    token = secrets.token_hex(16)
    environment = {
        **os.environ,
        "JUPYTERLAB_SETTINGS_DIR": str(settings),
        "JUPYTERLAB_WORKSPACES_DIR": str(place / "workspaces"),
        "JUPYTER_CONFIG_DIR": str(place / "config"),
        "JUPYTER_PREFER_ENV_PATH": "1",
        "DISTILL_RESULTS_DIR": str(place / "results"),
    }
    command = [sys.executable, "-m", "jupyterlab"]
    usual = lab_arguments(port=port, browser=False)
    command += [option for option in usual if "root_dir" not in option]
    command += [f"--ServerApp.root_dir={place / 'notebooks'}"]
    command += [f"--IdentityProvider.token={token}"]
    command += ["--LabApp.expose_app_in_browser=True"]  # window.jupyterapp
    with (place / "server.log").open("w") as log:
        outputs = {"stdout": log, "stderr": subprocess.STDOUT}
        server = subprocess.Popen(command, env=environment, **outputs)
    try:
        wait_until(lambda: answers(port), server, seconds=60)
        yield f"http://127.0.0.1:{port}/lab/workspaces/%s?token={token}"
    finally:
        server.terminate()
        server.wait(30)


def copy_without_outputs(folder: Path) -> None:
    """Untouched notebooks: a number beside a cell then means that it ran."""
    folder.mkdir()
    for path in NOTEBOOKS.glob("*.ipynb"):
        notebook = nbformat.read(path, as_version=4)
        for cell in notebook.cells:
            if cell.cell_type == "code":
                cell.outputs, cell.execution_count = [], None
        if path.stem in LAST_CELL:
            ends = [LAST_CELL[path.stem] in c.source for c in notebook.cells]
            del notebook.cells[ends.index(True) + 1 :]
        notebook.metadata.pop("widgets", None)
        nbformat.write(notebook, folder / path.name)


def run_all(page, address: str) -> None:
    """Open a notebook and run it to the end."""
    page.goto(address)
    page.wait_for_selector(".jp-Notebook .jp-CodeCell", timeout=60_000)
    page.wait_for_function(READY, timeout=60_000)
    page.evaluate(RUN_ALL)
    page.wait_for_function("window.ended", timeout=RUN_SECONDS * 1000)
    assert page.evaluate("window.ended") == "fine"


def drag(page, slider, share: float) -> None:
    """Move a slider's handle to a share of its track."""
    slider.scroll_into_view_if_needed()
    handle = slider.locator(".noUi-handle").first.bounding_box()
    track = slider.locator(".noUi-target").first.bounding_box()
    y = handle["y"] + handle["height"] / 2
    page.mouse.move(handle["x"] + handle["width"] / 2, y)
    page.mouse.down()
    page.mouse.move(track["x"] + track["width"] * share, y, steps=8)
    page.mouse.up()


def moved(page, label: str) -> None:
    """Drag a slider; its readout and then its picture must change."""
    name = page.get_by_text(label, exact=True)
    slider = page.locator(".widget-slider").filter(has=name).first
    old = slider.locator(".widget-readout").inner_text()
    with changed_picture(page, slider):
        drag(page, slider, 0.85)
    assert slider.locator(".widget-readout").inner_text() != old


def chosen(page, label: str, option: str) -> None:
    """Choose from a dropdown; its picture must change."""
    name = page.get_by_text(label, exact=True)
    dropdown = page.locator(".widget-dropdown").filter(has=name).first
    dropdown.scroll_into_view_if_needed()
    with changed_picture(page, dropdown):
        dropdown.locator("select").select_option(label=option)


@contextlib.contextmanager
def changed_picture(page, control) -> Iterator[None]:
    """The picture of the same widget is another one afterwards."""
    picture = control.locator(f"xpath={OUTPUT}").locator("img").first
    before = picture.get_attribute("src")
    yield
    wait_until(
        lambda: picture.get_attribute("src") != before, seconds=POINT_SECONDS
    )


THEORY = ["temperature", "beta", ("divergence", "skew"), "skew"]
PLAN = [("model", "Qwen3-0.6B"), ("method", "logit_chunked"), "length"]


@pytest.mark.parametrize(
    ("notebook", "controls"),
    [
        ("01_distillation_theory", THEORY),
        ("03_qlora_sft", ["LoRA rank"]),
        ("05_logit_distillation", ["temperature"]),
        ("06_feature_distillation", [("layer map", "reversed")]),
        ("07_on_policy_distillation", ["share of own text"]),
        ("10_scaling_up", PLAN),
    ],
)
def test_slider_moves_the_figure(browser, lab, notebook, controls):
    page = browser.new_page(viewport={"width": 1400, "height": 1000})
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on(
        "console",
        lambda line: line.type == "error" and errors.append(line.text),
    )
    run_all(page, lab % f"{notebook}/tree/{notebook}.ipynb")
    for control in controls:
        if isinstance(control, tuple):
            chosen(page, *control)
        else:
            moved(page, control)
    red = [text.strip() for text in page.locator(RED).all_inner_texts()]
    page.close()
    assert red == []
    assert errors == []
