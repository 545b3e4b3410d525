"""A process that has imported all that training needs, and forks executors' processes from it.

    python -m alto_exec.ray_cluster.zygote NODE    # the node's id, for who looks at processes

A line of stdin for each of them, a line of stdout when it is there. It ends when nobody asks for
more and all that it has forked have ended; if it is killed, they go with it.
"""

import ctypes
import json
import os
import pickle
import select
import selectors
import shutil
import signal
import socket
import sys
import threading
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, NoReturn, TextIO

from alto_exec.ray_cluster.berth import DEVICES, NVML_CHECK
from alto_exec.ray_cluster.messages import CALL, ORDERS, PULSE

if TYPE_CHECKING:
    from alto_exec.ray_cluster.duty import Duty
    from alto_exec.ray_cluster.worker import Worker

__all__ = ["Child", "fork_ahead", "load", "main", "serve"]

# What torch and transformers leave to be imported when a model is loaded.
_LATE = (
    "alto_exec.ray_cluster.duty",
    "alto_exec.parallel.launched",
    "transformers.modeling_utils",
    "transformers.models.auto.modeling_auto",
    "transformers.models.llama.modeling_llama",
)
_DIE_WITH_PARENT, _SET_NAME = 1, 15  # PR_SET_PDEATHSIG, PR_SET_NAME


@dataclass(frozen=True, slots=True)
class Child:
    pid: int
    ended: int  # a descriptor that can be read when it has ended
    life: socket.socket  # its berth closes it, or is told by it


def main() -> None:
    if os.fork():
        os._exit(0)  # so that whoever has begun it may end
    os.setsid()
    load()
    serve(sys.stdin, sys.stdout, _live)


def fork_ahead(door: socket.socket) -> None:
    """From a process that has begun nothing, and needs the same libraries: for the nursery of its
    own node, which so need not import them once more. It asks at that door; what is forked ends if
    this process ends before."""
    load()
    command = os.pidfd_open(os.getpid())
    if (pid := os.fork()) == 0:
        try:
            _wait_for_a_nursery(door, command)
        finally:
            os._exit(1)
    door.close()
    os.close(command)
    os.waitpid(pid, 0)


def _wait_for_a_nursery(door: socket.socket, command: int) -> None:
    if os.fork():
        os._exit(0)  # so that whoever has begun it may end
    os.setsid()
    os.environ.update({DEVICES: "", NVML_CHECK: "1"})
    ready, _, _ = select.select([door.fileno(), command], [], [])
    try:
        if door.fileno() not in ready:
            return
        line = door.accept()[0]
    finally:
        shutil.rmtree(os.path.dirname(door.getsockname()), ignore_errors=True)
        door.close()
        os.close(command)
    line.sendall(b"0")  # nobody else is answered from now on
    _, descriptors, _, _ = socket.recv_fds(line, 1, 2)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    for number, descriptor in enumerate(descriptors, start=1):
        os.dup2(descriptor, number)
        os.close(descriptor)
    serve(line.makefile("r"), line.makefile("w"), _live)


def load() -> None:
    """All that training needs, before anything is forked."""
    for name in _LATE:
        import_module(name)


def serve(
    requests: TextIO, answers: TextIO, live: Callable[[str, dict[str, str]], NoReturn]
) -> None:
    """Each request is a line, and the next one is written when it is answered."""
    living: dict[int, Child] = {}
    with selectors.DefaultSelector() as selector:
        selector.register(requests, selectors.EVENT_READ)
        while selector.get_map():
            for key, _ in selector.select():
                if key.data is not None:
                    if child := living.pop(key.data, None):
                        _bury(child, selector)
                elif line := requests.readline():
                    meeting, environment = json.loads(line)
                    with suppress(OSError):  # nobody is at the meeting any more
                        child = _bear(selector, meeting, partial(live, meeting, environment))
                        living[child.pid] = child
                    print(meeting, file=answers, flush=True)
                else:
                    selector.unregister(requests)


def _bear(selector: selectors.BaseSelector, meeting: str, live: Callable[[], NoReturn]) -> Child:
    life = socket.socket(socket.AF_UNIX)
    life.connect(meeting)
    parent = os.getpid()
    pid = os.fork()
    if pid == 0:
        life.close()
        for key in tuple(selector.get_map().values()):
            os.close(key.fd)  # its siblings' lives, and requests to the one that forks
        _die_with(parent)
        live()
    child = Child(pid, os.pidfd_open(pid), life)
    selector.register(child.ended, selectors.EVENT_READ, pid)
    selector.register(child.life, selectors.EVENT_READ, pid)
    return child


def _bury(child: Child, selector: selectors.BaseSelector) -> None:
    """It has ended, or its berth has: both end, the process first."""
    selector.unregister(child.ended)
    selector.unregister(child.life)
    signal.pidfd_send_signal(child.ended, signal.SIGKILL)
    os.waitpid(child.pid, 0)
    os.close(child.ended)
    child.life.close()


def _die_with(parent: int) -> None:
    ctypes.CDLL(None).prctl(_DIE_WITH_PARENT, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def _live(meeting: str, environment: dict[str, str]) -> NoReturn:
    """The life of an executor's process."""
    status = 1
    try:
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(2, 1)
        for name in (DEVICES, NVML_CHECK):
            os.environ.pop(name, None)
        os.environ.update(environment)
        ctypes.CDLL(None).prctl(_SET_NAME, f"alto-rank-{environment.get('RANK', 0)}".encode())
        orders, pulses = (_connected(meeting) for _ in range(2))
        duty: Duty = pickle.loads(orders.recv_bytes())
        worker = duty.begin()
        if worker is not None:
            threading.Thread(target=_serve_pulses, args=(worker, pulses), daemon=True).start()
        while True:
            text = orders.recv_bytes().decode()
            assert worker is not None, "it follows another"
            worker.order(ORDERS.read(text))
    except EOFError:
        status = 0  # the berth is gone
    except BaseException:
        traceback.print_exc()
        raise
    finally:
        os._exit(status)


def _serve_pulses(worker: "Worker", pulses: Connection) -> None:
    while True:
        try:
            asked = CALL.read(pulses.recv_bytes().decode())
            pulses.send_bytes(PULSE.dump(worker.listen(asked)).encode())
        except (EOFError, OSError):
            os._exit(0)


def _connected(meeting: str) -> Connection:
    with socket.socket(socket.AF_UNIX) as line:
        line.connect(meeting)
        return Connection(line.detach())


if __name__ == "__main__":
    main()
