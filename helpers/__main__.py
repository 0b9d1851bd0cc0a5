"""`python3 -m helpers`: the commands of the course, see helpers.cli.main."""

import signal
import sys

from helpers.cli.main import TERMINATED, main

if __name__ == "__main__":
    for stream in (sys.stdout, sys.stderr):  # a file on Windows: cp1252
        stream.reconfigure(errors="backslashreplace")
    # As an exception, so that a set-up stops the program it waits for.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(TERMINATED))
    sys.exit(main(sys.argv[1:]))
