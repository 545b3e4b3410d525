"""This machine as a Ray cluster of its own, for one run.

Ray's processes are those of a process of its own (`own_node`): they come up while this one imports
what training needs, which takes as long.
"""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alto_exec.ray_cluster.node.berth import ZYGOTE
from alto_runs.files.scratch import hold_folder

__all__ = ["OwnNode", "begin_ahead", "end", "made"]


@dataclass(frozen=True, slots=True)
class OwnNode:
    address: str
    group: int  # of its processes, but for the one that ends them
    door: str  # of what was forked ahead; "" where nothing was

    @contextmanager
    def paused(self) -> Iterator[None]:
        """While another process is timed: when they listen, they still import."""
        os.killpg(self.group, signal.SIGSTOP)
        try:
            yield
        finally:
            os.killpg(self.group, signal.SIGCONT)


_begun: list[tuple[subprocess.Popen[str], str]] = []  # one at most, with its door


def begin_ahead() -> None:
    """In a process that has begun and imported nothing: have it made while this one imports what
    training needs, and leave a fork of this one ready for its berths."""
    door = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    folder, _ = hold_folder()  # the fork holds it too
    door.bind(os.path.join(folder, "zygote"))
    door.listen()
    _begin(door.getsockname())
    from alto_exec.ray_cluster.node.zygote import fork_ahead

    fork_ahead(door)


def _begin(door: str = "") -> None:
    """It is there when `made` returns, and ends with this process."""
    script = Path(__file__).with_name("own_node.py")
    command = [sys.executable, "-P", str(script), str(os.getpid())]
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {ZYGOTE: door},
        start_new_session=True,  # so it hears nothing of the keys that interrupt this process
    )
    _begun.append((process, door))


def made() -> OwnNode:
    """As soon as this process may join it. Raises OSError where it cannot be made."""
    if not _begun:
        _begin()
    ((process, door),) = _begun
    assert process.stdout is not None
    line = process.stdout.readline()
    ended = {"error": "Ray's processes ended as they began"}
    told: dict[str, Any] = json.loads(line) if line else ended
    if "error" in told:
        end()
        raise OSError(told["error"])
    _take_over(told["environment"])
    return OwnNode(told["address"], told["group"], door)


def _take_over(environment: dict[str, str]) -> None:
    """What its processes are told by their environment, as Ray does where it has made them here."""
    if environment:
        from ray import _raylet

        compiled: Any = _raylet  # whose types lack it
        os.environ.update(environment)
        compiled.Config.initialize("")  # Ray may have read it before


def end() -> None:
    """Nobody trains any more. Ray itself would wait a second for each of its processes."""
    while _begun:
        process, _ = _begun.pop()
        process.terminate()
        process.wait()
