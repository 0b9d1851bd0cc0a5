"""Asks a server in a process of its own, interrupted by a test."""

import sys
from pathlib import Path

import tiny

from helpers.scale.server import Server, server_traces

url, output = sys.argv[1:]
server_traces(
    tiny.problems(10),
    Server(url, "tiny/teacher", concurrency=1, timeout=60.0),
    Path(output),
    profile=tiny.profile(Path(output).parent),
    progress=False,
)
