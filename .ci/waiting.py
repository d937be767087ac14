"""Shared by the checks that start processes: free ports, and waiting with a limit."""

import socket
import time


def free_port():
    with socket.socket() as some:
        some.bind(("127.0.0.1", 0))
        return some.getsockname()[1]


def listens(port):
    with socket.socket() as some:
        return some.connect_ex(("127.0.0.1", port)) == 0


def within(patience, what, holds):
    """Waits until `holds()`, for at most `patience` seconds."""
    limit = time.monotonic() + patience
    while not holds():
        assert time.monotonic() < limit, f"waited too long until {what}"
        time.sleep(0.02)
