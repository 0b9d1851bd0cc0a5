"""Asks a server in a process of its own, interrupted by a test."""

import sys
from pathlib import Path

from helpers.problems import load_problems
from helpers.profiles import PROFILES
from helpers.scale.server import Server, server_traces

url, output = sys.argv[1:]
server_traces(
    load_problems("mini", "validation", limit=10),
    Server(url, "tiny/teacher", concurrency=1, timeout=60.0),
    Path(output),
    profile=PROFILES["mini"],
)
