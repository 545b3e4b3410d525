"""Those who hold a connection and say nothing, over real sockets."""

import resource
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import uvicorn

from alto_service import connections
from alto_service.app import create_app
from alto_service.connections import TimedConnection, allow_many
from tests.service.cases import client_of, front, submission, write_data

SECONDS = 0.4
HEAD = b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\n"


@pytest.fixture
def address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, int]]:
    monkeypatch.setattr(connections, "_SILENCE_SECONDS", SECONDS)
    alone = front(tmp_path / "service", write_data(tmp_path / "root"))
    client_of(alone).post("/studies", json=submission())
    config = uvicorn.Config(
        create_app(alone), http=TimedConnection, log_level="warning", timeout_graceful_shutdown=1
    )
    server = uvicorn.Server(config)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        yield listening.getsockname()
        server.should_exit = True
        thread.join()


def opened(address: tuple[str, int], said: bytes) -> socket.socket:
    line = socket.create_connection(address, 20)
    line.sendall(said)
    return line


def answered(line: socket.socket) -> bool:
    """Whole, however many pieces it comes in."""
    answer = b""
    while not answer.endswith(b"}") and (piece := line.recv(4096)):
        answer += piece
    return b"200 OK" in answer


@pytest.mark.timeout(60)
def test_nobody_keeps_a_connection_for_nothing(address: tuple[str, int]) -> None:
    """Silent from the start, in the middle of a request, and after one was answered."""
    for said in (b"", HEAD):
        with opened(address, said) as line:
            assert line.recv(4096) == b""
    with opened(address, HEAD + b"\r\n") as line:
        assert answered(line)
        line.sendall(HEAD)
        assert line.recv(4096) == b""


@pytest.mark.timeout(60)
def test_one_that_asks_or_is_answered_keeps_it(address: tuple[str, int]) -> None:
    with (
        opened(address, HEAD + b"\r\n") as asking,
        opened(address, HEAD.replace(b"/health", b"/studies/s1/events") + b"\r\n") as listening,
    ):
        assert listening.recv(4096).startswith(b"HTTP/1.1 200 OK")
        listening.settimeout(0.01)
        for _ in range(6):
            assert answered(asking)
            time.sleep(SECONDS / 2)
            asking.sendall(HEAD + b"\r\n")
            with pytest.raises(TimeoutError):
                listening.recv(4096)


def test_as_many_as_the_system_allows() -> None:
    now, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (512, most))
        allow_many()
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (min(most, 65_536), most)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (now, most))
