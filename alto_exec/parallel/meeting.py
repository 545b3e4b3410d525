"""Where the ranks of an executor meet if they share no disk: the first one tells by a store where
it listens. A port that is free when an executor is ordered may be taken by the time it begins."""

import time
from datetime import timedelta
from typing import Any

import torch.distributed as dist

from alto_runs.files.artifacts import StoredArtifact

__all__ = ["STORED", "meet", "stored_meeting"]

STORED = "stored:"  # before the address of the first rank's node, a blank, and the file's URL
_PATIENCE_SECONDS = 300.0
_LOOK_SECONDS = 0.2

_tcp_store: Any = dist.TCPStore  # type: ignore[attr-defined]


def stored_meeting(host: str, file: StoredArtifact) -> str:
    """What the ranks are told."""
    return f"{STORED}{host} {file.url}"


def meet(meeting: str, rank: int, size: int) -> Any:
    """A store of `torch.distributed`. Raises OSError where nobody is there in time."""
    host, _, url = meeting.removeprefix(STORED).partition(" ")
    file, patience = StoredArtifact(url), timedelta(seconds=_PATIENCE_SECONDS)
    if rank == 0:
        store = _tcp_store(host, 0, size, True, patience, wait_for_workers=False)
        file.write(str(store.port))
        return store
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while True:
        try:
            port = int(file.beginning(8))
            return _tcp_store(host, port, size, False, patience)
        except FileNotFoundError:
            if time.monotonic() > deadline:
                raise
            time.sleep(_LOOK_SECONDS)
