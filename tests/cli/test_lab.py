"""`helpers lab`: a real server, local, with its token on."""

import json
import os
import re
import subprocess
import sys
import urllib.error
import urllib.request

import pytest
from waiting import answers, free_port, wait_until

CODE = """
import pathlib, sys
from helpers.cli import lab
lab.NOTEBOOKS = lab.SETTINGS = pathlib.Path(sys.argv[1])
sys.exit(lab.main(["--no-browser", "--port", sys.argv[2]]))
"""


@pytest.fixture
def server(tmp_path):
    """A running lab; gives its address and its token.

    Whoever runs it has switched the token off in a configuration.
    """
    config = tmp_path / "config"
    config.mkdir()
    off = "c.IdentityProvider.token = ''\nc.ServerApp.token = ''\n"
    for name in ("server", "lab"):
        (config / f"jupyter_{name}_config.py").write_text(off)
    places = {
        "JUPYTER_RUNTIME_DIR": str(tmp_path / "runtime"),
        "JUPYTER_CONFIG_DIR": str(config),
    }
    port = free_port()
    with subprocess.Popen(
        [sys.executable, "-c", CODE, str(tmp_path), str(port)],
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **places},
    ) as child:
        text = ""
        while "http://127.0.0.1" not in text or "?token=" not in text:
            text = child.stderr.readline()
            assert text, "the server has ended"
        wait_until(lambda: answers(port), child)  # printed a moment too early
        yield re.search(r"(http://[0-9.:]+)/lab\?token=(\w+)", text).groups()
        child.terminate()
        child.stderr.read()


@pytest.mark.slow
def test_lab_serves_this_machine_alone_and_asks_for_the_token(server):
    address, token = server
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(f"{address}/api/contents")
    assert refused.value.code == 403
    with urllib.request.urlopen(f"{address}/api/contents?token={token}") as r:
        assert json.load(r)["type"] == "directory"
