"""For tests of processes and servers: a free port, and no endless wait."""

import socket
import time
from collections.abc import Callable
from typing import Any


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as place:
        return place.getsockname()[1]


def answers(port: int) -> bool:
    with socket.socket() as place:
        return place.connect_ex(("127.0.0.1", port)) == 0


def wait_until(
    happens: Callable[[], Any], process: Any = None, seconds: float = 120
) -> None:
    """Fails when it takes longer, or when that process ends before."""
    end = time.monotonic() + seconds
    while not happens():
        assert time.monotonic() < end, f"not within {seconds} s"
        assert process is None or process.poll() is None, "it has ended"
        time.sleep(0.01)
