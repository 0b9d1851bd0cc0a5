"""`python3 -m helpers lab`: the notebooks in JupyterLab, on this machine."""

from __future__ import annotations

import os
from pathlib import Path

from helpers.cli.commands import command_parser, count
from helpers.cli.environment import REPOSITORY

NOTEBOOKS = REPOSITORY / "notebooks"
SETTINGS = REPOSITORY / "data" / "runs" / "lab"


def main(argv: list[str]) -> int:
    """Start JupyterLab and wait until it ends."""
    parser = command_parser("lab", "open the notebooks in JupyterLab")
    quiet = "print the address with its token, and open nothing"
    parser.add_argument("--no-browser", action="store_true", help=quiet)
    first = "the first port to try"
    parser.add_argument("--port", type=count, default=8888, help=first)
    options = parser.parse_args(argv)
    write_settings(SETTINGS)
    os.environ["JUPYTERLAB_SETTINGS_DIR"] = str(SETTINGS)
    os.environ["JUPYTER_PREFER_ENV_PATH"] = "1"  # the kernel: this Python
    os.environ["JUPYTER_NO_CONFIG"] = "1"  # one's own may switch the token off
    from jupyterlab.labapp import LabApp

    browser = not options.no_browser
    LabApp.launch_instance(lab_arguments(port=options.port, browser=browser))
    return 0


def lab_arguments(*, port: int, browser: bool) -> list[str]:
    """JupyterLab on this machine alone, its token on, quiet."""
    container = hasattr(os, "geteuid") and os.geteuid() == 0
    return [
        "--ip=127.0.0.1",
        f"--port={port}",
        f"--ServerApp.root_dir={NOTEBOOKS}",
        "--LabApp.news_url=None",
        "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate",
        "--LabApp.extension_manager=readonly",
        "--KernelManager.transport_encryption=auto",
        *([] if browser else ["--no-browser"]),
        *(["--allow-root"] if container else []),
    ]


def write_settings(folder: Path) -> None:
    """Switch the news off in JupyterLab's own settings."""
    name = "@jupyterlab/apputils-extension/notification.jupyterlab-settings"
    path = folder / name
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text('{"fetchNews": "false", "checkForUpdates": false}')
