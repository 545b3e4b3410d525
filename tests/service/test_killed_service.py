"""The whole service, killed while it trains and while many hand in studies, and started again."""

import json
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.error import HTTPError

import pytest

from alto_policy.events import LossReported, TaskArrived
from alto_runs.replaying import replay_run
from alto_runs.result import Result
from alto_service.folder import ServiceDirectory
from tests.ports import free_port
from tests.service.cases import (
    STUDY,
    assert_same_board,
    submission,
    tuned_alone,
    write_data,
)
from tests.style.sources import ROOT

STORM, SENDERS = 2, 5  # studies, and how many hand in each of them, all at once
LONG = STUDY.format(name="long").replace("samples: 16", "samples: 32")
PATIENCE_SECONDS = 240.0


@contextmanager
def served(out: Path, root: Path, port: int, *more: str) -> Iterator["subprocess.Popen[bytes]"]:
    """`alto serve` in a process of its own; killed at the end."""
    settings = root / "settings.yaml"
    settings.write_text("policy: {name: alto, warmup: 0.25}\n")
    options = ["--out", out, "--root", root, "--port", port, "--settings", settings]
    command = [sys.executable, "-m", "alto_cli", "serve", *map(str, options), *more]
    server = subprocess.Popen(command, cwd=ROOT)
    try:
        yield server
    finally:
        server.kill()
        server.wait()


def awaited(found: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not (answer := found()):
        assert time.monotonic() < deadline, "nothing happens any more"
        time.sleep(0.02)
    return answer


def ask(url: str, body: object = None, key: str = "") -> Any:
    """What the service answers, as soon as it does, however often it has to be asked."""
    headers = {"Content-Type": "application/json", "Idempotency-Key": key}
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, headers)

    def answered() -> Any:
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return json.load(answer)
        except HTTPError:
            raise
        except (OSError, HTTPException):
            return None

    return awaited(answered)


@pytest.mark.timeout(600)
def test_none_is_lost_and_none_is_trained_twice(tmp_path: Path) -> None:
    root, out = write_data(tmp_path / "root"), tmp_path / "service"
    port = free_port()
    url = f"http://127.0.0.1:{port}/studies"

    def send(number: int) -> str:
        return str(ask(url, submission(), f"k{number}")["id"])

    with ThreadPoolExecutor(STORM * SENDERS) as pool:
        with served(out, root, port):
            ask(url, {"study": LONG}, "long")
            awaited(lambda: "LossReported" in json.dumps(ask(f"{url}/s1/log")))
            storm: list[Future[str]] = [
                pool.submit(send, number % STORM) for number in range(STORM * SENDERS)
            ]
            awaited(lambda: any(sent.done() for sent in storm))
        with served(out, root, port):
            taken = [sent.result() for sent in storm]
            studies = [study["id"] for study in ask(url)["studies"]]
            assert Counter(taken) == dict.fromkeys(studies[1:], SENDERS)
            awaited(lambda: all(study["state"] == "done" for study in ask(url)["studies"]))
    directory = ServiceDirectory(out)
    assert_same_board(directory.study(1), tuned_alone(root, tmp_path / "long", LONG).leaderboard)
    expected = tuned_alone(root, tmp_path / "small").leaderboard
    for number in range(2, STORM + 2):
        assert_same_board(directory.study(number), expected)
    assert replay_run(out)[1] is None
    events = [entry.event for entry in Result(out).log.entries]
    arrived = Counter(event.task.id for event in events if isinstance(event, TaskArrived))
    told = Counter((e.job, e.step) for e in events if isinstance(e, LossReported))
    assert len(arrived) == STORM + 1
    assert {*arrived.values(), *told.values()} == {1}
