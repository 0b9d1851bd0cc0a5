"""`python3 -m helpers lab`: the notebooks in JupyterLab, on this machine."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from helpers.cli.commands import command_parser
from helpers.cli.environment import REPOSITORY

NOTEBOOKS = REPOSITORY / "notebooks"
SETTINGS = REPOSITORY / "data" / "runs" / "lab"


def main(argv: list[str]) -> int:
    """Start JupyterLab and wait until it ends."""
    parser = command_parser("lab", "open the notebooks in JupyterLab")
    parser.add_argument(
        "--no-browser",
        action="store_true",
        help="print the address with its token, and open nothing",
    )
    parser.add_argument(
        "--port", type=int, default=8888, help="the first port to try"
    )
    options = parser.parse_args(argv)
    if not NOTEBOOKS.is_dir():
        print(f"There is no folder {NOTEBOOKS}.", file=sys.stderr)
        return 2
    os.environ["DISTILL_PROFILE"] = options.profile
    os.environ["DISTILL_SEED"] = str(options.seed)
    os.environ["JUPYTERLAB_SETTINGS_DIR"] = str(write_settings(SETTINGS))
    os.environ["JUPYTER_PREFER_ENV_PATH"] = "1"  # the kernel: this Python
    from jupyterlab.labapp import LabApp

    LabApp.launch_instance(
        lab_arguments(port=options.port, browser=not options.no_browser)
    )
    return 0


def lab_arguments(*, port: int, browser: bool) -> list[str]:
    """Return the options: this machine only, token on, no pop-ups."""
    arguments = [
        "--ip=127.0.0.1",
        f"--port={port}",
        f"--ServerApp.root_dir={NOTEBOOKS}",
        "--LabApp.news_url=None",
        "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate",
        "--LabApp.extension_manager=readonly",
        "--KernelManager.transport_encryption=auto",
    ]
    if not browser:
        arguments.append("--no-browser")
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        arguments.append("--allow-root")  # in a container
    return arguments


def write_settings(folder: Path) -> Path:
    """Switch the news off in JupyterLab's own settings; return `folder`."""
    path = folder / "@jupyterlab" / "apputils-extension"
    path.mkdir(parents=True, exist_ok=True)
    path = path / "notification.jupyterlab-settings"
    if not path.exists():
        settings = {"fetchNews": "false", "checkForUpdates": False}
        path.write_text(json.dumps(settings), encoding="utf-8")
    return folder
