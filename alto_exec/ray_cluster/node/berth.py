"""The actors of a node: one that has executors' processes forked, and one for each that is.

Neither imports what training needs. They reach Ray's processes by value, and so does what they
import of ours: this package, which imports it, need not be imported there.
"""

import contextlib
import json
import os
import socket
import subprocess
import sys
import threading
import time
from multiprocessing.connection import Connection
from typing import IO, Any
from uuid import uuid4

from alto_runs.files.scratch import held_folder, sweep_folders

__all__ = ["DEVICES", "MEETING", "NVML_CHECK", "ZYGOTE", "Berth", "Nursery"]

DEVICES = "CUDA_VISIBLE_DEVICES"  # how Ray tells a process which ones are its own
NVML_CHECK = "PYTORCH_NVML_BASED_CUDA_CHECK"  # torch looks for GPUs without beginning to use them
MEETING = "ALTO_MEETING"  # where the ranks of an executor meet, for `join_ranks`
ZYGOTE = "ALTO_ZYGOTE"  # the door of one that the head has forked from itself, for its own node
_LOOK_SECONDS = 0.5  # between two looks at the process
_MEET_SECONDS = 60.0  # that a process which has been forked may take to connect


class Nursery:
    """Keeps a process that has imported all that training needs, and forks from it."""

    def __init__(self) -> None:
        import ray

        sweep_folders()
        self._node = ray.get_runtime_context().get_node_id()
        self._requests, self._answers = _zygote(self._node)

    def bear(self, meeting: str, environment: dict[str, str]) -> None:
        """A process that comes to the socket `meeting`, as soon as everything is imported."""
        with contextlib.suppress(BrokenPipeError):
            self._requests.write(json.dumps([meeting, environment]) + "\n")
            self._requests.flush()
        if not self._answers.readline():
            self._requests, self._answers = _zygote(self._node)
            raise RuntimeError("the process that forks executors was gone")

    def ping(self) -> None:
        """Whoever gets an answer knows that the node lives."""


class Berth:
    """Holds devices for the executors of one run, one after another, and passes on what the
    process of the present one and the head say.

    It never trains, so that whatever becomes of a process, the next one finds it sound. When it
    ends, so does its process. If nobody has spoken to it for `orphan_seconds`, or it has been
    without a process for `vacant_seconds`, it gives its devices back, and that is its end.
    """

    def __init__(self, orphan_seconds: float, vacant_seconds: float) -> None:
        from ray.util.placement_group import get_current_placement_group

        self._orphan_seconds = orphan_seconds
        self._vacant_seconds = vacant_seconds
        self._group = get_current_placement_group()
        self._meeting: str | None = None
        self._meeting_folder = contextlib.ExitStack()  # of one for this node's own ranks
        self._tenant = ""
        self._is_following = False
        self._is_awaited = True  # its process is on its way
        self._process: _Process | None = None
        self._changed = threading.Condition()  # held while the process changes
        self._heard_at = time.monotonic()
        threading.Thread(target=self._outlive, name="orphan", daemon=True).start()

    def tenant(self) -> str:
        return self._tenant

    def device(self) -> str:
        """The one that Ray has given it, as a process is told of it; nothing if it is none."""
        return os.environ.get(DEVICES, "")

    def meeting(self, folder: str | None = None) -> dict[str, str]:
        """Where ranks may meet next: a file that the first of them makes, in a folder that all see
        if they are on several nodes. A port that is free now may be taken by then."""
        self._forget_meeting()
        if folder is None:
            folder = str(self._meeting_folder.enter_context(held_folder()))
        os.makedirs(folder, exist_ok=True)
        self._meeting = os.path.join(folder, uuid4().hex)
        return {MEETING: f"file://{self._meeting}"}

    def house(
        self,
        nursery: Any,
        tenant: str,
        duty: bytes,
        meeting: dict[str, str],
        rank: dict[str, str],
        *devices: str,
    ) -> None:
        """Have a process from the nursery that does the duty, or without one from what the head has
        forked from itself; the one before has ended then.

        It is told in its environment where its ranks meet, which one it is, and the `devices` of
        all of them, in their order.
        """
        seen = {DEVICES: ",".join(devices)} if devices and all(devices) else {}
        with self._changed:
            self._is_awaited = True
            if self._process is not None:
                self._process.end()
                self._process.close()
            self._process = None
            try:
                self._process = _forked(nursery, seen | meeting | rank)
                self._process.send(duty)
            finally:
                self._is_awaited = False
                self._tenant, self._is_following = tenant, rank["RANK"] != "0"
                self._changed.notify_all()

    def order(self, message: str) -> None:
        if self._process is not None:
            self._process.send(message.encode())

    def listen(self, tenant: str, message: str) -> str:
        """What the tenant's process answers once it is there; nothing if it has ended."""
        self._heard_at = time.monotonic()
        with self._changed:
            self._changed.wait_for(lambda: self._tenant == tenant)
            process = self._process
        try:
            return "" if process is None else process.ask(message)
        finally:
            self._heard_at = time.monotonic()

    def end(self) -> None:
        """Have the process killed. It is gone when this is done, and so may this berth be, as soon
        as the head hears of that."""
        self._forget_meeting()
        if self._process is not None:
            self._process.end()

    def _forget_meeting(self) -> None:
        if self._meeting is not None:
            with contextlib.suppress(OSError):
                os.unlink(self._meeting)
        self._meeting_folder.close()

    def _outlive(self) -> None:
        from ray.util.placement_group import remove_placement_group

        vacant_at = float("inf")  # since the first look that found it so
        while time.monotonic() < min(
            self._heard_at + self._orphan_seconds, vacant_at + self._vacant_seconds
        ):
            time.sleep(_LOOK_SECONDS)
            process = self._process
            is_alive = process is not None and process.is_alive()
            if is_alive and self._is_following:
                self._heard_at = time.monotonic()  # nobody speaks to it while its leader lives
            if is_alive or self._is_awaited:
                vacant_at = float("inf")
            else:
                vacant_at = min(vacant_at, time.monotonic())
        self._forget_meeting()
        remove_placement_group(self._group)  # and so this process is ended


class _Process:
    """One that was forked, seen from its berth."""

    def __init__(self, life: socket.socket, orders: Connection, pulses: Connection) -> None:
        self._life = life  # nothing is said on it; it closes
        self._orders = orders
        self._pulses = pulses

    def send(self, message: bytes) -> None:
        with contextlib.suppress(OSError):  # who listens is told that it has ended
            self._orders.send_bytes(message)

    def ask(self, message: str) -> str:
        try:
            self._pulses.send_bytes(message.encode())
            return self._pulses.recv_bytes().decode()
        except (EOFError, OSError):
            return ""

    def is_alive(self) -> bool:
        try:
            return bool(self._life.recv(1, socket.MSG_DONTWAIT))
        except BlockingIOError:
            return True
        except OSError:
            return False

    def end(self) -> None:
        with contextlib.suppress(OSError):
            self._life.shutdown(socket.SHUT_WR)
            self._life.recv(1)

    def close(self) -> None:
        for line in (self._life, self._orders, self._pulses):
            line.close()


def _forked(nursery: Any, environment: dict[str, str]) -> _Process:
    import ray

    with held_folder() as folder, socket.socket(socket.AF_UNIX) as server:
        meeting = os.path.join(folder, "meeting")
        server.bind(meeting)
        server.listen()
        if nursery is None:
            _ask_at_the_door(meeting, environment)
        else:
            ray.get(nursery.bear.remote(meeting, environment))
        server.settimeout(_MEET_SECONDS)
        life, orders, pulses = (server.accept()[0] for _ in range(3))
        life.settimeout(None)
        return _Process(life, Connection(orders.detach()), Connection(pulses.detach()))


def _ask_at_the_door(meeting: str, environment: dict[str, str]) -> None:
    """The process that comes says what it says where we do."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as line:
        line.settimeout(_MEET_SECONDS)
        line.connect(os.environ[ZYGOTE])
        socket.send_fds(line, [json.dumps([meeting, environment]).encode()], [2])
        if not line.recv(1):
            raise RuntimeError("the process that forks executors did not")


def _zygote(node: str) -> tuple[IO[str], IO[str]]:
    """How to ask one that is begun now. It sees no GPU: one that was asked for anything would be
    lost to what is forked."""
    environment = os.environ | {
        DEVICES: "",
        NVML_CHECK: "1",
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    process = subprocess.Popen(
        [sys.executable, "-m", "alto_exec.ray_cluster.node.zygote", node],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=environment,
        text=True,
    )
    process.wait()  # it goes on without a parent: Ray kills children of those who have ended
    assert process.stdin is not None
    assert process.stdout is not None
    return process.stdin, process.stdout
