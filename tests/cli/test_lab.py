"""`helpers lab`: a real server, local, with its token on."""

import json
import os
import re
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from helpers.cli import lab

ROOT = Path(__file__).resolve().parents[2]
CODE = """
import pathlib, sys
from helpers.cli import lab
lab.NOTEBOOKS = lab.SETTINGS = pathlib.Path(sys.argv[1])
sys.exit(lab.main(["--no-browser", "--port", sys.argv[2]]))
"""


def wait_for(port: int) -> None:
    end = time.monotonic() + 20
    while time.monotonic() < end:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            time.sleep(0.1)


@pytest.fixture
def server(tmp_path):
    """A running lab; gives its address and its token."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    child = subprocess.Popen(
        [sys.executable, "-c", CODE, str(tmp_path), str(port)],
        cwd=ROOT,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "JUPYTER_RUNTIME_DIR": str(tmp_path / "runtime")},
    )
    for line in child.stderr:
        found = re.search(r"(http://[0-9.:]+)/lab\?token=(\w+)", line)
        if found:
            wait_for(port)  # the address is printed a moment too early
            yield found[1], found[2]
            break
    child.terminate()
    child.stderr.read()
    child.wait(timeout=20)
    child.stderr.close()


@pytest.mark.slow
def test_lab_serves_this_machine_alone_and_asks_for_the_token(server):
    address, token = server
    assert address.startswith("http://127.0.0.1:")
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(f"{address}/api/contents")
    assert refused.value.code == 403
    with urllib.request.urlopen(f"{address}/api/contents?token={token}") as r:
        assert json.load(r)["type"] == "directory"


def test_write_settings_turns_the_news_off_and_keeps_a_change(tmp_path):
    lab.write_settings(tmp_path)
    (path,) = tmp_path.rglob("*.jupyterlab-settings")
    assert json.loads(path.read_text())["fetchNews"] == "false"
    path.write_text("{}")
    lab.write_settings(tmp_path)
    assert path.read_text() == "{}"
