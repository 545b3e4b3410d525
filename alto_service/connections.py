"""Connections to the service: many of them, and none for those who hold one and say nothing."""

import asyncio
import resource

from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle

__all__ = ["TimedConnection", "allow_many"]

_SILENCE_SECONDS = 30.0
_MOST_FILES = 65_536


def allow_many() -> None:
    """Systems begin with a thousand open files for a process: as many clients, and nothing else."""
    now, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    if 0 <= now < _MOST_FILES:
        wanted = _MOST_FILES if most < 0 else min(most, _MOST_FILES)
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, most))


class TimedConnection(H11Protocol):
    """Ends where for a while no request has come whole; one that is being answered is let be."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._look_later()

    def _look_later(self) -> None:
        self.loop.call_later(_SILENCE_SECONDS, self._look, self.cycle)

    def _look(self, before: RequestResponseCycle | None) -> None:
        """`before` is the request that was the last one then."""
        if self.transport.is_closing():
            return
        if self.cycle is before and (before is None or before.response_complete):
            self.transport.close()
        else:
            self._look_later()
