"""The processes of a service are started again, whatever was killed."""

import logging
import multiprocessing
import re
import socket
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

import alto_cli
from alto_service.serving import Crew
from alto_service.settings import ServiceSettings

PIPE = staticmethod(multiprocessing.Pipe)


def NOBODY() -> None: ...


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
    monkeypatch.setattr(crew, "_context", type("Context", (), {"Process": Process, "Pipe": PIPE}))
    crew.start(on_mistake=NOBODY)
    try:
        waiting = threading.Event()
        while not all(crew.alive().values()):
            waiting.wait(0.01)
    finally:
        crew.stop()
    assert Process.num_made == 3


@pytest.mark.timeout(30)
@pytest.mark.parametrize(
    ("tells", "mistake"),
    [
        (["no cluster there"], "no cluster there"),
        ([None, "no cluster there", "no cluster there", None], None),
    ],
)
def test_only_what_the_first_one_cannot_begin_with_is_a_mistake(
    tells: Sequence[str | None],
    mistake: str | None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    left, is_over = list(tells), threading.Event()

    class Telling(Process):
        def __init__(self, *, args: tuple[Any, ...], name: str, **_: object) -> None:
            self._is_over = threading.Event()
            if name == "checker":
                return
            if left:
                line = left.pop(0)
                self._is_over.set()
                if line is not None:
                    args[-1].send(line)
            else:
                is_over.set()

        def start(self) -> None: ...

    for name in ("_LEAST_SECONDS", "_MISTAKE_SECONDS"):
        monkeypatch.setattr(f"alto_service.serving.{name}", 0.01)
    crew = Crew((tmp_path, ServiceSettings(), (), None))
    monkeypatch.setattr(crew, "_context", type("Context", (), {"Process": Telling, "Pipe": PIPE}))
    with caplog.at_level(logging.WARNING):
        crew.start(on_mistake=is_over.set)
        assert is_over.wait(20)
        crew.stop()
    assert crew.mistake == mistake
    assert caplog.text.count("the trainer: no cluster there; it is") == (0 if mistake else 2)


@pytest.mark.timeout(120)
@pytest.mark.parametrize("of_settings", [False, True])
def test_where_nobody_can_train_the_service_ends_with_one_line(
    of_settings: bool,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    settings = tmp_path / "settings.yaml"
    settings.write_text(f"executor: {{gpus: {2 if of_settings else 1}}}\n")
    command = ["serve", "--out", str(tmp_path / "out"), "--root", str(tmp_path), "--port", "0"]
    command += ["--settings", str(settings)]
    assert alto_cli.main([*command, *([] if of_settings else ["--cluster", "127.0.0.1:1"])]) == 2
    _, err = capfd.readouterr()
    (told,) = err.splitlines()
    assert re.search(r"serving at http://127.0.0.1:[1-9]\d*, ", caplog.text)
    expected = "executor.gpus: value 2" if of_settings else "--cluster: value '127.0.0.1:1': no Ray"
    assert told.startswith(f"alto: {expected}")


def test_a_port_that_is_taken(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        command = ["serve", "--out", str(tmp_path / "out"), "--root", str(tmp_path)]
        assert alto_cli.main([*command, "--port", str(port)]) == 2
    expected = f"alto: --host, --port: value 127.0.0.1:{port}: cannot listen there: Address already"
    assert capsys.readouterr().err.startswith(expected)
