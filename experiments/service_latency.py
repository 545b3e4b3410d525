"""How long a submission takes where many wait, and a service that is started again.

    python experiments/service_latency.py FOLDER    # holds study.yaml, its data and its model

The service checks and trains the first of them meanwhile, on the same cores.
"""

import json
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

__all__ = ["main"]

_PORT, _QUEUED, _MEASURED = 8398, 1_000, 200


def main(folder: Path) -> None:
    body = json.dumps({"study": (folder / "study.yaml").read_text()}).encode()
    with tempfile.TemporaryDirectory() as out:
        server = _serve(Path(out) / "service", folder)
        for _ in range(_QUEUED):
            _ask("/studies", body)
        seconds = sorted(_timed(body) for _ in range(_MEASURED))
        p99 = seconds[int(0.99 * len(seconds))]
        print(f"submit: median {statistics.median(seconds) * 1e3:.1f} ms, p99 {p99 * 1e3:.1f} ms")
        server.kill()
        server.wait()
        begun = time.perf_counter()
        server = _serve(Path(out) / "service", folder)
        last = _ask(f"/studies/s{_QUEUED + _MEASURED}")
        print(f"restart: {time.perf_counter() - begun:.1f} s; the last study is {last['state']}")
        server.kill()
        server.wait()


def _serve(out: Path, root: Path) -> subprocess.Popen[bytes]:
    """A service that answers."""
    command = [sys.executable, "-m", "alto_cli", "serve", "--out", str(out), "--root", str(root)]
    server = subprocess.Popen([*command, "--port", str(_PORT)])
    while True:
        try:
            _ask("/health")
            return server
        except OSError:
            time.sleep(0.05)


def _timed(body: bytes) -> float:
    begun = time.perf_counter()
    _ask("/studies", body)
    return time.perf_counter() - begun


def _ask(path: str, body: bytes | None = None) -> dict[str, object]:
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(f"http://127.0.0.1:{_PORT}{path}", body, headers)
    with urllib.request.urlopen(request, timeout=60) as answer:
        found: dict[str, object] = json.load(answer)
        return found


if __name__ == "__main__":
    main(Path(sys.argv[1]))
