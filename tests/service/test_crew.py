"""The processes of a service are started again, whatever was killed."""

import threading
from pathlib import Path

import pytest

from alto_service.serving import Crew
from alto_service.settings import ServiceSettings


class Process:
    """The first one cannot be started: the server that would fork it is gone."""

    exitcode = 0
    num_made = 0

    def __init__(self, **_: object) -> None:
        Process.num_made += 1
        self._is_first = Process.num_made == 1
        self._is_over = threading.Event()

    def start(self) -> None:
        if self._is_first:
            raise EOFError("unexpected EOF")

    def join(self) -> None:
        self._is_over.wait()

    def kill(self) -> None:
        self._is_over.set()

    def is_alive(self) -> bool:
        return not self._is_over.is_set()


@pytest.mark.timeout(30)
def test_a_killed_fork_server_leaves_nobody_unstarted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("alto_service.serving._LEAST_SECONDS", 0.05)
    crew = Crew((tmp_path, ServiceSettings(), (), None))
    monkeypatch.setattr(crew, "_context", type("Context", (), {"Process": Process}))
    crew.start()
    try:
        waiting = threading.Event()
        while not all(crew.alive().values()):
            waiting.wait(0.01)
    finally:
        crew.stop()
    assert Process.num_made == 3
