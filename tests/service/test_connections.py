"""Those who hold a connection and say nothing, over real sockets."""

import resource
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar

import pytest
import uvicorn

from alto_service import connections
from alto_service.app import create_app
from alto_service.connections import TimedConnection, allow_many
from tests.service.cases import client_of, front, submission, write_data

SECONDS = 0.4
HEAD = b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\n"


class LookedAt(TimedConnection):
    """When the test says so, and not after a while."""

    all_of_them: ClassVar[list["LookedAt"]] = []

    def _look_later(self) -> None:
        if self not in self.all_of_them:
            self.all_of_them.append(self)
        self.before = self.cycle

    def look(self) -> bool:
        """Whether it is ended by that."""
        is_done = threading.Event()

        def look() -> None:
            self._look(self.before)
            is_done.set()

        self.loop.call_soon_threadsafe(look)
        assert is_done.wait(20)
        return bool(self.transport.is_closing())


@contextmanager
def served(kind: type[TimedConnection], folder: Path) -> Iterator[tuple[str, int]]:
    alone = front(folder / "service", write_data(folder / "root"))
    client_of(alone).post("/studies", json=submission())
    config = uvicorn.Config(
        create_app(alone), http=kind, log_level="warning", timeout_graceful_shutdown=1
    )
    server = uvicorn.Server(config)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            yield listening.getsockname()
        finally:
            server.should_exit = True
            thread.join()


def opened(address: tuple[str, int], said: bytes) -> socket.socket:
    line = socket.create_connection(address, 20)
    line.sendall(said)
    return line


def is_ended(line: socket.socket) -> bool:
    try:
        return line.recv(4096) == b""
    except ConnectionError:  # before all was read that has been said on it
        return True


def answered(line: socket.socket) -> bool:
    """Whole, however many pieces it comes in."""
    answer = b""
    while not answer.endswith(b"}") and (piece := line.recv(4096)):
        answer += piece
    return b"200 OK" in answer


@pytest.mark.timeout(60)
@pytest.mark.parametrize("said", [b"", HEAD], ids=["nothing", "half a request"])
def test_nobody_keeps_a_connection_for_nothing(
    said: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "_SILENCE_SECONDS", SECONDS)
    with served(TimedConnection, tmp_path) as address, opened(address, said) as line:
        assert is_ended(line)


@pytest.mark.timeout(60)
def test_one_that_asks_or_is_answered_keeps_it(tmp_path: Path) -> None:
    """Until it has asked for nothing, or for half of something, from one look to the next."""
    LookedAt.all_of_them.clear()
    with (
        served(LookedAt, tmp_path) as address,
        opened(address, HEAD + b"\r\n") as asking,
        opened(address, HEAD.replace(b"/health", b"/studies/s1/events") + b"\r\n") as listening,
    ):
        assert listening.recv(4096).startswith(b"HTTP/1.1 200 OK")
        assert answered(asking)
        one, other = LookedAt.all_of_them
        for _ in range(3):
            assert not one.look()
            assert not other.look()
            asking.sendall(HEAD + b"\r\n")
            assert answered(asking)
        assert not one.look()
        asking.sendall(HEAD)
        assert one.look()
        assert not other.look()
        assert is_ended(asking)


def test_as_many_as_the_system_allows() -> None:
    now, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (512, most))
        allow_many()
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (min(most, 65_536), most)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (now, most))
