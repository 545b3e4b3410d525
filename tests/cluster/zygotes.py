"""Processes of Ray's nodes forked from one that has the libraries loaded, which else each of them
imports: what forks executors, and Ray's own workers, of which a run begins four and more."""

import gc
import json
import os
import runpy
import socket
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NoReturn

import psutil
import pytest
import ray._raylet
from ray._private.workers import default_worker

from alto_exec.ray_cluster.node import zygote
from tests.forked import forked

__all__ = ["warm_processes", "workers_of"]

_RAY: Any = ray._raylet
_FOLDER = Path(__file__).parent / "warm"
_ADDRESS, _RAYLET = "ALTO_TESTS_WARM", "RAY_RAYLET_PID"  # Ray tells the second to its workers
_SETUP = ("--serialized-runtime-env-context", "--language")  # options of what begins a worker


@contextmanager
def warm_processes() -> Iterator[None]:
    """Nodes that begin within have such."""
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as folder:
        address = f"{folder}/warm"
        patch.setenv(_ADDRESS, address)
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


def workers_of(raylet: int) -> Iterator[psutil.Process]:
    """Those of Ray's workers that were forked for this process of a node. They are not below it."""
    for path in Path(os.environ[_ADDRESS]).parent.glob(f"{raylet}-*"):
        with suppress(psutil.Error):
            found = psutil.Process(int(path.name.rpartition("-")[2]))
            if found.create_time() <= path.stat().st_mtime:  # not another with its number
                yield found


def _serve(server: socket.socket) -> None:
    """As long as it lives. Who asks waits until it is answered, or is killed meanwhile."""
    zygote.load()
    gc.collect()
    gc.freeze()  # what is forked copies nothing of it to look at it
    while True:
        asking, _ = server.accept()
        with asking, suppress(OSError, ValueError):
            _answer(asking, server)


def _answer(asking: socket.socket, server: socket.socket) -> None:
    _, descriptors, _, _ = socket.recv_fds(asking, 1, 3)
    try:
        with asking.makefile() as lines:
            command, folder, environment = json.load(lines)
        pid = os.fork()
        if pid == 0:
            server.close()
            asking.close()
            _become(descriptors, command, folder, environment)
        os.waitpid(pid, 0)  # it ends when it has forked what is asked for
    finally:
        for descriptor in descriptors:
            os.close(descriptor)
    asking.sendall(b"0")


def _become(
    descriptors: Sequence[int], command: Sequence[str], folder: str, environment: Mapping[str, str]
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
        if command[0] == "-m":
            _RAY.setproctitle(" ".join(command))
            zygote.main()
        else:
            _become_worker(command)
        status = 0
    finally:
        os._exit(status)


def _become_worker(command: Sequence[str]) -> None:
    """What Ray's setup of a worker goes on to, where the environment is that of its node."""
    if os.fork():
        return
    folder = os.path.dirname(os.environ[_ADDRESS])
    Path(folder, f"{os.environ[_RAYLET]}-{os.getpid()}").touch()
    program = default_worker.__file__
    words = command[command.index(program) + 1 :]
    sys.argv = [program, *(word for word in words if word.partition("=")[0] not in _SETUP)]
    runpy.run_path(program, run_name="__main__")
