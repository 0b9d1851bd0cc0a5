"""The sliders where people use them: in JupyterLab, in a real browser.

Needs Playwright (environment.yml) and a Chromium on this machine, for
instance `apt-get install chromium`; skipped with the reason elsewhere.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from helpers.lab import NOTEBOOKS, lab_arguments, write_settings

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
IDLE = """() => {
  const all = [...document.querySelectorAll('.jp-CodeCell')];
  const prompts = all.map(
    c => c.querySelector('.jp-InputArea-prompt').innerText.trim());
  return prompts.length > 0 && !prompts.some(p => p.includes('*'))
    && prompts.filter(p => /[0-9]/.test(p)).length === all.length;
}"""
RED = (
    '[data-mime-type="application/vnd.jupyter.error"], '
    '[data-mime-type="application/vnd.jupyter.stderr"]'
)
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
        pytest.skip("no Chromium here; `apt-get install chromium` adds one")
    with playwright.sync_playwright() as started:
        chromium = started.chromium.launch(executable_path=path, args=FLAGS)
        yield chromium
        chromium.close()


@pytest.fixture(scope="module")
def lab(tmp_path_factory) -> Iterator[str]:
    """JupyterLab over copies of the notebooks; gives its address."""
    place = tmp_path_factory.mktemp("lab")
    shutil.copytree(NOTEBOOKS, place / "notebooks")
    settings = write_settings(place / "settings")
    tracker = settings / "@jupyterlab" / "notebook-extension"
    tracker.mkdir(parents=True)
    (tracker / "tracker.jupyterlab-settings").write_text(
        '{"windowingMode": "none"}'  # every cell is in the page
    )
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    token = secrets.token_hex(16)
    environment = {
        **os.environ,
        "JUPYTERLAB_SETTINGS_DIR": str(settings),
        "JUPYTERLAB_WORKSPACES_DIR": str(place / "workspaces"),
        "JUPYTER_CONFIG_DIR": str(place / "config"),
        "JUPYTER_PREFER_ENV_PATH": "1",
        "DISTILL_RESULTS_DIR": str(place / "results"),
    }
    arguments = [
        *lab_arguments(port=port, browser=False),
        f"--ServerApp.root_dir={place / 'notebooks'}",
        f"--IdentityProvider.token={token}",
    ]
    with (place / "server.log").open("w") as log:
        server = subprocess.Popen(
            [sys.executable, "-m", "jupyterlab", *arguments],
            env=environment,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    try:
        wait_for_server(port, token)
        yield f"http://127.0.0.1:{port}/lab/tree/%s?token={token}"
    finally:
        server.terminate()
        server.wait(30)


def wait_for_server(port: int, token: str) -> None:
    address = f"http://127.0.0.1:{port}/api/status?token={token}"
    for _ in range(240):
        with contextlib.suppress(OSError):
            urllib.request.urlopen(address, timeout=1)
            return
        time.sleep(0.25)
    pytest.fail("JupyterLab did not start within a minute")


def run_all(page, address: str) -> None:
    """Open a notebook, clear it, run it to the end."""
    page.goto(address)
    page.wait_for_selector(".jp-Notebook .jp-CodeCell", timeout=60_000)
    page.wait_for_selector(
        '.jp-Notebook-ExecutionIndicator[data-status="idle"]', timeout=60_000
    )
    choose(page, "Kernel", "Restart Kernel and Run All Cells")
    page.locator(".jp-Dialog .jp-mod-accept").click()
    page.wait_for_timeout(2000)
    page.wait_for_function(IDLE, timeout=RUN_SECONDS * 1000)


def choose(page, menu: str, item: str) -> None:
    page.locator(".lm-MenuBar-item").filter(has_text=menu).first.click()
    page.locator(".lm-Menu-item").filter(has_text=item).first.click()


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


def moved(page, label: str, share: float) -> tuple[str, str]:
    """The readout of a slider after a drag that changed its picture."""
    slider = page.locator(".widget-slider").filter(has_text=label).first
    output = page.locator(".jp-OutputArea-output").filter(has=slider).last
    picture = output.locator("img").first
    before = picture.get_attribute("src")
    old = slider.locator(".widget-readout").inner_text()
    drag(page, slider, share)
    deadline = time.monotonic() + POINT_SECONDS
    while picture.get_attribute("src") == before:
        assert time.monotonic() < deadline, f"{label}: no new picture"
        page.wait_for_timeout(250)
    return old, slider.locator(".widget-readout").inner_text()


@pytest.mark.parametrize(
    ("notebook", "sliders"),
    [
        ("01_distillation_theory", ["temperature", "beta", "skew"]),
        ("03_qlora_sft", ["LoRA rank"]),
        ("05_logit_distillation", ["temperature"]),
    ],
)
def test_slider_moves_the_figure(browser, lab, notebook, sliders):
    page = browser.new_page(viewport={"width": 1400, "height": 1000})
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on(
        "console",
        lambda line: line.type == "error" and errors.append(line.text),
    )
    run_all(page, lab % f"{notebook}.ipynb")
    errors.clear()  # what JupyterLab itself had to say while it loaded
    for label in sliders:
        old, new = moved(page, label, 0.85)
        assert old != new
    red = [text.strip() for text in page.locator(RED).all_inner_texts()]
    folder = os.environ.get("DISTILL_SCREENSHOTS")
    if folder:
        Path(folder).mkdir(parents=True, exist_ok=True)
        page.screenshot(path=f"{folder}/{notebook}.png")
    page.close()
    assert red == []
    assert errors == []
