"""Zygotes forked from a process that has the libraries loaded, which else each of them imports."""

import json
import os
import socket
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NoReturn

import pytest
import ray._raylet

from alto_exec.ray_cluster.node import zygote
from tests.forked import forked

__all__ = ["warm_zygotes"]

_RAY: Any = ray._raylet
_FOLDER = Path(__file__).parent / "warm"


@contextmanager
def warm_zygotes() -> Iterator[None]:
    """Nodes that begin within have such."""
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as folder:
        address = f"{folder}/zygotes"
        patch.setenv("ALTO_TESTS_ZYGOTES", address)
        patch.setenv("PYTHONPATH", str(_FOLDER), prepend=os.pathsep)
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(address)
            server.listen()
            process = forked(_serve, server)
            process.start()
        try:
            yield
        finally:
            process.kill()
            process.join()


def _serve(server: socket.socket) -> None:
    """As long as it lives. Who asks waits until it is answered, or is killed meanwhile."""
    zygote.load()
    while True:
        asking, _ = server.accept()
        with asking, suppress(OSError, ValueError):
            _answer(asking, server)


def _answer(asking: socket.socket, server: socket.socket) -> None:
    _, descriptors, _, _ = socket.recv_fds(asking, 1, 3)
    try:
        with asking.makefile() as lines:
            arguments, folder, environment = json.load(lines)
        pid = os.fork()
        if pid == 0:
            server.close()
            asking.close()
            _become(descriptors, arguments, folder, environment)
        os.waitpid(pid, 0)  # it ends when it has forked the zygote
    finally:
        for descriptor in descriptors:
            os.close(descriptor)
    asking.sendall(b"0")


def _become(
    descriptors: Sequence[int], arguments: Sequence[str], folder: str, environment: dict[str, str]
) -> NoReturn:
    """A process that was started with these."""
    status = 1
    try:
        for number, descriptor in enumerate(descriptors):
            os.dup2(descriptor, number)
            os.close(descriptor)
        sys.stdin, sys.stdout, sys.stderr = os.fdopen(0), os.fdopen(1, "w"), os.fdopen(2, "w")
        os.chdir(folder)
        os.environ.clear()
        os.environ.update(environment)
        _RAY.setproctitle(" ".join([zygote.__name__, *arguments]))
        zygote.main()
        status = 0
    finally:
        os._exit(status)
