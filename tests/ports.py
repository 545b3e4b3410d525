"""Ports that a process may be told of before it listens there."""

import itertools
import os
import socket

__all__ = ["FIRST_PORT", "free_port"]

# Below those that systems give to whoever asks for any, and above those of Ray's workers: one that
# is free when it is chosen is still free when it is used.
FIRST_PORT, _OF_EACH, _PROCESSES = 20_000, 100, 100
_numbers = itertools.count()


def free_port() -> int:
    """Processes that test side by side do not choose the same ones."""
    first = FIRST_PORT + _OF_EACH * (os.getpid() % _PROCESSES)
    for number in itertools.islice(_numbers, _OF_EACH):
        port = first + number % _OF_EACH
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) != 0:
                return port
    raise AssertionError("all ports are taken")
