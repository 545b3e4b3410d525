"""The client and a service that is not there, or not yet again."""

import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from alto_runs.errors import UserError
from alto_service import client as client_module
from alto_service.client import Client
from tests.cli.typed import typed
from tests.ports import free_port
from tests.service.cases import STUDY

RESTART_SECONDS = 1.5


class Service(BaseHTTPRequestHandler):
    status, error = 200, ""

    def do_GET(self) -> None:
        body = json.dumps({"path": self.path, "error": self.error}).encode()
        self.send_response(self.status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def port() -> int:
    return free_port()


class Clock:
    """That of a client: seconds pass where it pauses."""

    def __init__(self, restart: Callable[[], None]) -> None:
        self._now, self._restart = 0.0, restart

    def monotonic(self) -> float:
        return self._now

    def sleep(self, seconds: float) -> None:
        before, self._now = self._now, self._now + seconds
        if before < RESTART_SECONDS <= self._now:
            self._restart()


def test_a_restart_is_waited_for(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    with ExitStack() as stack:
        clock = Clock(lambda: stack.enter_context(serving(port, Service)))
        monkeypatch.setattr(client_module, "time", clock)
        client = Client(f"http://127.0.0.1:{port}")
        assert client.status("s1")["path"] == "/studies/s1"


@contextmanager
def serving(port: int, kind: type[Service]) -> Iterator[None]:
    with HTTPServer(("127.0.0.1", port), kind) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield
        finally:
            server.shutdown()
            thread.join()


@contextmanager
def refusing(port: int, code: int, line: str) -> Iterator[None]:
    """A service that answers so whatever it is asked."""

    class Refusing(Service):
        status, error = code, line

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.do_GET()

    with serving(port, Refusing):
        yield


def test_a_service_that_wants_a_token_says_how_to_give_it(port: int) -> None:
    with (
        refusing(port, 401, "who are you?"),
        pytest.raises(UserError, match=r"^who are you\?; --token-file names a file"),
    ):
        Client(f"http://127.0.0.1:{port}").status("s1")


def test_a_mistake_in_a_study_names_its_file(port: int, tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(STUDY.format(name="mine"))
    with (
        refusing(port, 400, "study: policy: leave this out"),
        pytest.raises(UserError, match=f"^{path}: policy: leave this out$"),
    ):
        Client(f"http://127.0.0.1:{port}").submit(path, tenant=None, priority=0)


def test_it_gives_up_in_the_end(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("alto_service.client._PATIENCE_SECONDS", 0.2)
    with pytest.raises(UserError, match=r"^--server: value 'http://127.0.0.1:\d+': nobody listens"):
        Client(f"http://127.0.0.1:{port}").status("s1")


def test_a_name_that_nobody_has_is_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def look_up(host: str, *_: object) -> None:
        asked.append(host)
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    with pytest.raises(UserError, match=r"^--server: value 'http://nowhere.invalid:1': "):
        Client("http://nowhere.invalid:1").status("s1")
    assert asked == ["nowhere.invalid"]


class Over(Service):
    def do_POST(self) -> None:
        study = {"id": "s1", "name": "n", "tenant": "", "state": "done", "jobs": {}}
        body = json.dumps({**study, "best": None, "error": None, "directory": "d"}).encode()
        self.send_response(202)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def test_a_study_that_is_over_cannot_be_cancelled_and_that_is_told(
    port: int, capsys: pytest.CaptureFixture[str]
) -> None:
    with HTTPServer(("127.0.0.1", port), Over) as server:
        thread = threading.Thread(target=server.handle_request)
        thread.start()
        answer = typed(capsys, "cancel", "s1", "--server", f"http://127.0.0.1:{port}")
        thread.join()
    assert (answer.status, answer.err) == (0, "s1 has ended: it stays done\n")
