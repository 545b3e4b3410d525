"""A process that has imported all that training needs, and forks executors' processes from it.

    python -m alto_exec.ray_cluster.node.zygote NODE    # the node's id, for who looks at processes

A line of stdin for each of them, a line of stdout when it is there. It ends when nobody asks for
more and all that it has forked have ended; if it is killed, they go with it.
"""

import ctypes
import json
import os
import pickle
import selectors
import shutil
import signal
import socket
import sys
import threading
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, NoReturn, TextIO

from alto_exec.ray_cluster.node.berth import DEVICES, NVML_CHECK
from alto_exec.ray_cluster.node.messages import CALL, ORDERS, PULSE

if TYPE_CHECKING:
    from alto_exec.ray_cluster.node.duty import Duty
    from alto_exec.ray_cluster.node.worker import Worker

__all__ = ["Child", "Cradle", "fork_ahead", "load", "main", "serve", "serve_at"]

# What torch and transformers leave to be imported when a model is loaded.
_LATE = (
    "alto_exec.ray_cluster.node.duty",
    "alto_exec.team.launched",
    "transformers.modeling_utils",
    "transformers.models.auto.modeling_auto",
    "transformers.models.llama.modeling_llama",
)
_DIE_WITH_PARENT, _SET_NAME = 1, 15  # PR_SET_PDEATHSIG, PR_SET_NAME
_SAY_SECONDS, _LONGEST_REQUEST = 5.0, 2**16  # bytes

Live = Callable[[str, dict[str, str]], NoReturn]
Source = int | socket.socket | TextIO


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
    """From a process that has begun nothing, and needs the same libraries: for the berths of its
    own node, which ask at that door for as long as this process lives."""
    load()
    command = os.pidfd_open(os.getpid())
    if (pid := os.fork()) == 0:
        try:
            _stay(door, command)
        finally:
            os._exit(1)
    door.close()
    os.close(command)
    os.waitpid(pid, 0)


def _stay(door: socket.socket, command: int) -> None:
    if os.fork():
        os._exit(0)  # so that whoever has begun it may end
    os.setsid()
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.environ.update({DEVICES: "", NVML_CHECK: "1"})
    folder = os.path.dirname(door.getsockname())
    try:
        serve_at(door, command, _live)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def load() -> None:
    """All that training needs, before anything is forked."""
    for name in _LATE:
        import_module(name)


def serve(requests: TextIO, answers: TextIO, live: Live) -> None:
    """Each request is a line, and the next one is written when it is answered."""
    cradle = Cradle(live)

    def hear() -> None:
        if line := requests.readline():
            meeting, environment = json.loads(line)
            with suppress(OSError):  # nobody is at the meeting any more
                cradle.bear(meeting, environment)
            print(meeting, file=answers, flush=True)
        else:
            cradle.leave(requests)

    cradle.listen(requests, hear)
    cradle.rock()


def serve_at(door: socket.socket, command: int, live: Live) -> None:
    """Each who comes to the door says where to meet, and where the process is to say what it says.
    Nobody is heard any more when the process that `command` describes has ended."""
    cradle = Cradle(live)

    def hear() -> None:
        with door.accept()[0] as line, suppress(OSError):
            line.settimeout(_SAY_SECONDS)
            request, descriptors, _, _ = socket.recv_fds(line, _LONGEST_REQUEST, 1)
            if request:  # who says nothing wants to know whether somebody listens
                meeting, environment = json.loads(request)
                cradle.bear(meeting, environment, descriptors)
                line.sendall(b"0")
            for descriptor in descriptors:
                os.close(descriptor)

    def leave() -> None:
        cradle.leave(command)
        cradle.leave(door)

    cradle.listen(door, hear)
    cradle.listen(command, leave)
    cradle.rock()


class Cradle:
    """Forks processes, and sees to it that each ends with its berth, and that the berth hears."""

    def __init__(self, live: Live) -> None:
        self._live = live
        self._living: set[int] = set()
        self._selector = selectors.DefaultSelector()

    def listen(self, source: Source, hear: Callable[[], None]) -> None:
        self._selector.register(source, selectors.EVENT_READ, hear)

    def leave(self, source: Source) -> None:
        self._selector.unregister(source)

    def rock(self) -> None:
        """Until nobody is listened to, and all that were forked have ended."""
        with self._selector:
            while self._selector.get_map():
                for key, _ in self._selector.select():
                    key.data()

    def bear(
        self, meeting: str, environment: dict[str, str], descriptors: Sequence[int] = ()
    ) -> None:
        """One that says what it says there, if that is told. Raises OSError if nobody meets it."""
        life = socket.socket(socket.AF_UNIX)
        life.connect(meeting)
        parent = os.getpid()
        pid = os.fork()
        if pid == 0:
            life.close()
            for descriptor in descriptors:
                os.dup2(descriptor, 2)
                os.close(descriptor)
            for key in tuple(self._selector.get_map().values()):
                os.close(key.fd)  # its siblings' lives, and requests to the one that forks
            _die_with(parent)
            self._live(meeting, environment)
        child = Child(pid, os.pidfd_open(pid), life)
        self._living.add(pid)
        for source in (child.ended, child.life):
            self.listen(source, partial(self._bury, child))

    def _bury(self, child: Child) -> None:
        """It has ended, or its berth has: both end, the process first."""
        if child.pid not in self._living:
            return  # both at once
        self._living.remove(child.pid)
        self.leave(child.ended)
        self.leave(child.life)
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
