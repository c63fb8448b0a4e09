"""Starts the program that its arguments name, and ends it with standard input: then whoever asked for it is gone."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading


def main() -> None:
    """Until the program ends or has to."""
    program = subprocess.Popen(sys.argv[1:], stdin=subprocess.DEVNULL)
    threading.Thread(target=_watch, daemon=True).start()
    sys.exit(program.wait())


def _watch() -> None:
    sys.stdin.buffer.read()
    os.killpg(0, signal.SIGKILL)  # itself, too, and what the program started


if __name__ == "__main__":
    main()
