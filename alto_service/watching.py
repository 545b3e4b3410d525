"""One look at the database for all who wait for a study to grow or to end."""

import asyncio
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

from starlette.exceptions import HTTPException

from alto_service.store import Store

__all__ = ["Watch"]

_LOOK_SECONDS = 0.25  # between two looks
_MOST, _MOST_OF_TENANT = 1_000, 200  # who watch at a time
_RETRY_SECONDS = 10


class Watch:
    """In one event loop. However many watch, the database is asked once for all of them."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._seats: dict[str | None, int] = {}  # taken, by tenant
        self._waiting: dict[asyncio.Future[None], tuple[int, int]] = {}
        self._looking: asyncio.Task[None] | None = None

    @contextmanager
    def seat(self, tenant: str | None) -> Iterator[None]:
        """For as long as one of the tenant watches, or the operator. Raises HTTPException where too
        many do."""
        taken = self._seats.get(tenant, 0)
        if sum(self._seats.values()) >= _MOST:
            raise _too_many(f"{_MOST} streams are open")
        if tenant is not None and taken >= _MOST_OF_TENANT:
            raise _too_many(f"{_MOST_OF_TENANT} streams of {tenant!r} are open")
        self._seats[tenant] = taken + 1
        try:
            yield
        finally:
            self._seats[tenant] -= 1
            if not self._seats[tenant]:
                del self._seats[tenant]

    async def has_news(self, number: int, after: int, seconds: float) -> bool:
        """Whether within so many seconds the study has entries after that one, or has ended."""
        news = asyncio.get_running_loop().create_future()
        self._waiting[news] = number, after
        if self._looking is None or self._looking.done():
            self._looking = asyncio.create_task(self._look())
        try:
            async with asyncio.timeout(seconds):
                await news
        except TimeoutError:
            return False
        finally:
            del self._waiting[news]
        return True

    async def _look(self) -> None:
        """Until nobody waits."""
        while self._waiting:
            await asyncio.sleep(_LOOK_SECONDS)
            numbers = {number for number, _ in self._waiting.values()}
            try:
                lasts = await asyncio.to_thread(self._store.last_entries, numbers)
            except sqlite3.Error as error:  # told to all who wait for it
                for news in self._waiting:
                    if not news.done():
                        news.set_exception(error)
                continue
            for news, (number, after) in self._waiting.items():
                if number not in numbers or news.done():
                    continue
                if (last := lasts.get(number)) is None or last > after:
                    news.set_result(None)


def _too_many(line: str) -> HTTPException:
    headers = {"Retry-After": str(_RETRY_SECONDS)}
    return HTTPException(429, f"events: {line}, as many as may be", headers)
