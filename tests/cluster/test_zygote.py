"""The process that forks executors' processes: what becomes of whom when one of them ends."""

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import psutil
import pytest

from alto_exec.ray_cluster.devices import Node
from alto_exec.ray_cluster.node import berth
from alto_exec.ray_cluster.node.zygote import serve
from alto_exec.ray_cluster.nurseries import Nurseries
from tests.forked import forked
from tests.style.sources import ROOT

SECONDS = 30
LOOK_FOR_GPUS = """\
import runpy, torch
asked = []
for name in ("is_available", "device_count", "_lazy_init", "get_device_capability"):
    setattr(torch.cuda, name, lambda *_, name=name: asked.append(name))
runpy.run_module("alto_exec.ray_cluster.node.zygote", run_name="__main__")
print(asked)
"""


def serve_at(line: socket.socket) -> None:
    with line.makefile() as requests, line.makefile("w") as answers:
        serve(requests, answers, do_nothing)


def do_nothing(meeting: str, environment: dict[str, str]) -> NoReturn:
    time.sleep(1000)
    os._exit(0)


class Zygote:
    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.lives: list[socket.socket] = []
        self.line, its = socket.socketpair()
        with its:
            self.process = forked(serve_at, its)
            self.process.start()

    def ask(self, meeting: Path | str) -> None:
        self.line.sendall(f"{json.dumps([str(meeting), {}])}\n".encode())
        with self.line.makefile() as answers:
            assert answers.readline() == f"{meeting}\n"

    def bear(self) -> tuple[psutil.Process, socket.socket]:
        """A child, and its berth's end of its life."""
        before = set(self.children())
        meeting = self._folder / f"{len(before)}"
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(str(meeting))
            server.listen()
            self.ask(meeting)
            life = server.accept()[0]
        life.settimeout(SECONDS)
        self.lives.append(life)
        (child,) = set(self.children()) - before
        return child, life

    def children(self) -> list[psutil.Process]:
        return list(psutil.Process(self.process.pid).children())


@pytest.fixture
def zygote() -> Iterator[Zygote]:
    with tempfile.TemporaryDirectory() as folder:  # names of sockets are short
        found = Zygote(Path(folder))
        yield found
        found.process.kill()
        for line in (found.line, *found.lives):
            line.close()


def test_a_berth_is_told_when_its_process_ends(zygote: Zygote) -> None:
    child, life = zygote.bear()
    other, others_life = zygote.bear()
    os.kill(child.pid, signal.SIGKILL)
    assert life.recv(1) == b""
    assert zygote.children() == [other]
    others_life.settimeout(0.2)
    with pytest.raises(TimeoutError):
        others_life.recv(1)


def test_a_process_ends_with_its_berth_whatever_it_does(zygote: Zygote) -> None:
    child, life = zygote.bear()
    other, _ = zygote.bear()
    os.kill(child.pid, signal.SIGSTOP)
    life.close()
    child.wait(SECONDS)
    assert zygote.children() == [other]


def test_a_process_is_gone_when_its_berth_is_told(zygote: Zygote) -> None:
    child, life = zygote.bear()
    life.shutdown(socket.SHUT_WR)
    assert life.recv(1) == b""
    assert not child.is_running()


def test_it_stays_until_its_last_child_has_ended(zygote: Zygote) -> None:
    """Executors outlive their head, and so what it has begun."""
    _, life = zygote.bear()
    zygote.line.shutdown(socket.SHUT_WR)
    zygote.process.join(1)
    assert zygote.process.is_alive()
    life.close()
    zygote.process.join(SECONDS)
    assert zygote.process.exitcode == 0


def test_its_children_do_not_outlive_it(zygote: Zygote) -> None:
    child, _ = zygote.bear()
    zygote.process.kill()
    child.wait(SECONDS)


def test_a_berth_that_is_gone_is_no_matter(zygote: Zygote) -> None:
    zygote.ask("nowhere")
    zygote.bear()


def test_it_goes_on_without_a_parent_and_what_it_imports_asks_for_no_gpu() -> None:
    """What has begun to use one cannot be forked."""
    command, pipe = [sys.executable, "-c", LOOK_FOR_GPUS], subprocess.PIPE
    with (
        tempfile.TemporaryDirectory() as folder,
        socket.socket(socket.AF_UNIX) as server,
        subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, bufsize=1) as begun,
    ):
        server.bind(f"{folder}/meeting")
        server.listen()
        assert begun.wait(4 * SECONDS) == 0
        assert begun.stdin is not None
        assert begun.stdout is not None
        begun.stdin.write(json.dumps([f"{folder}/meeting", {}]) + "\n")
        assert begun.stdout.readline() == f"{folder}/meeting\n"
        server.settimeout(SECONDS)
        lines = [server.accept()[0] for _ in ("life", "orders", "pulses")]
        for line in lines:
            line.close()
        begun.stdin.close()
        assert begun.stdout.read() == "[]\n"


AHEAD = """
import json, os, socket, sys, tempfile
from contextlib import contextmanager
from alto_exec.ray_cluster.node import berth, zygote
from alto_exec.ray_cluster.nurseries import Nurseries
waiting = tempfile.mkdtemp()
path = os.environ[berth.ZYGOTE] = os.path.join(waiting, "zygote")
door = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
door.bind(path)
door.listen()
zygote.fork_ahead(door)
nurseries = Nurseries(path)
assert nurseries.of("node") is None
berths = [berth._forked(None, {"RANK": str(rank)}) for rank in (3, 4)]
assert nurseries.of("node") is None
assert all(each.is_alive() for each in berths)
if sys.argv[1] == "ends":
    for each in berths:
        each.end()
    assert not any(each.is_alive() for each in berths)
else:
    print(json.dumps(waiting), flush=True)
    os._exit(0)
assert os.path.exists(waiting)
print(json.dumps(waiting))
"""


@pytest.mark.timeout(120)
@pytest.mark.parametrize("end", ["ends", "is gone"])
def test_a_head_leaves_one_ready_for_the_berths_of_its_own_node(end: str) -> None:
    """In a process that has done nothing before; for any number, and until it ends."""
    command = [sys.executable, "-c", AHEAD, end]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as head:
        assert head.stdout is not None
        waiting = Path(json.loads(head.stdout.readline()))
        assert head.wait(SECONDS) == 0
    deadline = time.monotonic() + SECONDS
    while waiting.exists():
        assert time.monotonic() < deadline, "it goes with its head, and all that it has forked"
        time.sleep(0.05)


def test_a_door_behind_which_nobody_is() -> None:
    """Nurseries are begun then, and who asks there has no process."""
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        path = f"{folder}/zygote"
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as door:
            door.bind(path)
        patch.setenv(berth.ZYGOTE, path)
        with pytest.raises(OSError, match="refused"):
            berth._forked(None, {})
        begun: list[str] = []
        patch.setattr(Nurseries, "_of", lambda _, node: begun.append(node))
        nurseries = Nurseries(path)
        nurseries.tend([Node("one", "one", "cpu", 1, has_gpus=False)])
        assert begun == []
        nurseries.of("one")
        assert begun == ["one"]
        nurseries.tend([Node("one", "one", "cpu", 1, has_gpus=False)])
        assert begun == ["one", "one"]
