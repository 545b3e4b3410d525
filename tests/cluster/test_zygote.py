"""The process that forks executors' processes: what becomes of whom when one of them ends."""

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

SECONDS = 30
SERVE = """\
import sys, time
from alto_exec.ray_cluster.zygote import serve
serve(sys.stdin, sys.stdout, lambda meeting, environment: time.sleep(1000))
"""
LOOK_FOR_GPUS = """\
import torch
asked = []
for name in ("is_available", "device_count", "_lazy_init", "get_device_capability"):
    setattr(torch.cuda, name, lambda *_, name=name: asked.append(name))
from alto_exec.ray_cluster import zygote
zygote.serve = lambda *_: print(asked)
zygote.main()
"""


class Zygote:
    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.lives: list[socket.socket] = []
        self.process = subprocess.Popen(
            [sys.executable, "-c", SERVE],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def bear(self) -> tuple[psutil.Process, socket.socket]:
        """A child, and its berth's end of its life."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        before = set(self.children())
        meeting = self._folder / f"{len(before)}"
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(str(meeting))
            server.listen()
            self.process.stdin.write(json.dumps([str(meeting), {}]) + "\n")
            self.process.stdin.flush()
            assert self.process.stdout.readline() == f"{meeting}\n"
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
        with found.process:
            yield found
            found.process.kill()
            for life in found.lives:
                life.close()


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
    assert zygote.process.stdin is not None
    zygote.process.stdin.close()
    with pytest.raises(subprocess.TimeoutExpired):
        zygote.process.wait(5)
    life.close()
    assert zygote.process.wait(SECONDS) == 0


def test_its_children_do_not_outlive_it(zygote: Zygote) -> None:
    child, _ = zygote.bear()
    zygote.process.kill()
    child.wait(SECONDS)


def test_a_berth_that_is_gone_is_no_matter(zygote: Zygote) -> None:
    assert zygote.process.stdin is not None
    assert zygote.process.stdout is not None
    zygote.process.stdin.write(json.dumps(["nowhere", {}]) + "\n")
    zygote.process.stdin.flush()
    assert zygote.process.stdout.readline() == "nowhere\n"
    zygote.bear()


def test_what_it_imports_asks_for_no_gpu() -> None:
    """What has begun to use one cannot be forked."""
    asked = subprocess.run(
        [sys.executable, "-c", LOOK_FOR_GPUS], capture_output=True, text=True, check=True
    )
    assert asked.stdout == "[]\n"
