"""How long a submission takes where a thousand studies wait, and a service that is started again.

    python experiments/speed/service_latency.py fill FOLDER OUT    # FOLDER: study.yaml, data, model
    python experiments/speed/service_latency.py measure FOLDER OUT

Filling takes minutes, since every study is checked; a study of many samples keeps the queue full.
What is measured is one restart, and submissions while the service checks and trains on its cores.
"""

import argparse
import json
import os
import socket
import statistics
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.error import HTTPError

__all__ = ["main"]

_MEASURED = 200
_START_SECONDS, _FILL_SECONDS, _ANSWER_SECONDS = 60.0, 3600.0, 120.0


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("phase", choices=("fill", "measure"))
    parser.add_argument("folder", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--queued", type=int, default=1_000)
    options = parser.parse_args(arguments)
    study = json.dumps({"study": (options.folder / "study.yaml").read_text()}).encode()
    if options.phase == "fill":
        _fill(options.out, options.folder, study, options.queued)
    else:
        _measure(options.out, options.folder, study, options.queued)


def _fill(out: Path, folder: Path, study: bytes, queued: int) -> None:
    url = _free_address()
    with _served(out, folder, url):
        for _ in range(queued - _count(url)):
            _ask(f"{url}/studies", study)
        deadline = time.monotonic() + _FILL_SECONDS
        while left := _count(url, "submitted") + _count(url, "checked"):
            assert time.monotonic() < deadline, f"{left} studies are not in the queue yet"
            time.sleep(1.0)
        print({state: _count(url, state) for state in ("queued", "running", "done")})


def _measure(out: Path, folder: Path, study: bytes, queued: int) -> None:
    log, url = out / "run.jsonl", _free_address()
    num_bytes, begun = log.stat().st_size, time.perf_counter()
    with _served(out, folder, url):
        last = _ask(f"{url}/studies/s{queued}")
        answered = time.perf_counter() - begun
        while log.stat().st_size <= num_bytes:
            assert time.perf_counter() - begun < _START_SECONDS, "nothing is trained any more"
            time.sleep(0.02)
        trained = time.perf_counter() - begun
        print(f"restart: the last study, {last['state']}, is told after {answered:.1f} s,", end=" ")
        print(f"training goes on after {trained:.1f} s; load {os.getloadavg()[0]:.1f}")
        seconds = sorted(_timed(url, study) for _ in range(_MEASURED))
        median, p99, most = statistics.median(seconds), seconds[-1 - _MEASURED // 100], seconds[-1]
        print(f"submit: median {median * 1e3:.1f} ms, p99 {p99 * 1e3:.1f} ms,", end=" ")
        print(f"most {most * 1e3:.1f} ms; load {os.getloadavg()[0]:.1f}")


@contextmanager
def _served(out: Path, root: Path, url: str) -> Iterator[None]:
    """A service that answers; killed at the end."""
    command = [sys.executable, "-m", "alto_cli", "serve", "--out", str(out), "--root", str(root)]
    server = subprocess.Popen([*command, "--port", url.rpartition(":")[2]])
    try:
        deadline = time.monotonic() + _START_SECONDS
        while not _answers(url):
            assert server.poll() is None, f"the service has ended with status {server.returncode}"
            assert time.monotonic() < deadline, "the service does not answer"
            time.sleep(0.02)
        yield
    finally:
        server.kill()
        server.wait()


def _answers(url: str) -> bool:
    try:
        _ask(f"{url}/health")
    except OSError:
        return False
    return True


def _count(url: str, state: str | None = None) -> int:
    """Studies in that state, or all."""
    count, after = 0, 0
    which = "" if state is None else f"&state={state}"
    while True:
        page = _ask(f"{url}/studies?limit=1000&after={after}{which}")
        count += len(page["studies"])
        if page["after"] is None:
            return count
        after = page["after"]


def _timed(url: str, body: bytes) -> float:
    begun = time.perf_counter()
    _ask(f"{url}/studies", body)
    return time.perf_counter() - begun


def _ask(url: str, body: bytes | None = None) -> dict[str, Any]:
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=_ANSWER_SECONDS) as answer:
            found: dict[str, Any] = json.load(answer)
            return found
    except HTTPError as error:
        raise SystemExit(f"{url}: {error.code}: {error.read().decode()}") from error


def _free_address() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}"


if __name__ == "__main__":
    main(sys.argv[1:])
