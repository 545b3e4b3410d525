"""Streams of entries: what they hold, how many there may be, and what they ask of the database."""

import asyncio
import re
import sqlite3
import time
from collections.abc import Collection, Mapping
from pathlib import Path

import pytest
from starlette.exceptions import HTTPException

from alto_service import watching
from alto_service.connections import TimedConnection
from alto_service.front import Front
from alto_service.store import Store
from alto_service.streaming import stream_entries
from alto_service.watching import Watch
from tests.service.cases import client_of, front, submission, write_data
from tests.service.test_connections import HEAD, opened, served

LISTEN = HEAD.replace(b"/health", b"/studies/s1/events") + b"\r\n"


@pytest.fixture
def alone(tmp_path: Path) -> Front:
    found = front(tmp_path / "service", write_data(tmp_path / "root"))
    for number in range(3):
        client_of(found).post("/studies", json=submission(f"study{number}"))
    return found


def log(front: Front, study: int, *entries: int) -> None:
    with sqlite3.connect(front.directory.store_path) as store:
        rows = [(study, entry) for entry in entries]
        store.executemany("INSERT INTO entries VALUES (?, ?, '{}')", rows)


def end(front: Front, study: int) -> None:
    with sqlite3.connect(front.directory.store_path) as store:
        store.execute("UPDATE studies SET state = 'done' WHERE number = ?", (study,))


def test_entries_are_streamed_a_page_at_a_time(alone: Front) -> None:
    """Between two pieces it is seen that a client has gone: each entry by itself never looked."""
    log(alone, 1, *range(450))
    end(alone, 1)

    async def pieces() -> list[str]:
        watch = Watch(alone.store)
        return [piece async for piece in stream_entries(alone, watch, 1, 9)]

    found = asyncio.run(pieces())
    assert [piece.count("event: entry") for piece in found] == [200, 200, 40, 0]
    ids = [int(n) for piece in found for n in re.findall(r"^id: (\d+)$", piece, re.MULTILINE)]
    assert ids == list(range(10, 450))


def test_what_grows_is_told_and_then_the_end(alone: Front) -> None:
    async def pieces() -> list[str]:
        stream = stream_entries(alone, Watch(alone.store), 1, -1)
        log(alone, 1, 0)
        found = [await anext(stream)]
        coming = asyncio.ensure_future(anext(stream))
        await asyncio.sleep(0.1)
        assert not coming.done()
        log(alone, 1, 1)
        found.append(await coming)
        coming = asyncio.ensure_future(anext(stream))
        await asyncio.sleep(0.1)
        end(alone, 1)
        return [*found, await coming]

    first, second, last = asyncio.run(asyncio.wait_for(pieces(), 30))
    assert (first[:5], second[:5]) == ("id: 0", "id: 1")
    assert last.startswith("event: end\n")


class Counted(Store):
    looks = 0

    def last_entries(self, numbers: Collection[int]) -> Mapping[int, int]:
        self.looks += 1
        return super().last_entries(numbers)


def test_one_look_serves_all_who_wait(alone: Front, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "_LOOK_SECONDS", 0.05)
    store = Counted(alone.directory.store_path)
    log(alone, 2, 0)

    async def waited() -> list[bool]:
        watch = Watch(store)
        waiting = [
            asyncio.ensure_future(watch.has_news(study, after, seconds))
            for study, after, seconds in ((1, -1, 60.0), (2, 0, 1.0), (3, -1, 60.0))
            for _ in range(100)
        ]
        while store.looks < 2:
            await asyncio.sleep(0.01)
        log(alone, 1, 0)
        end(alone, 3)
        return await asyncio.gather(*waiting)

    begun = time.monotonic()
    found = asyncio.run(waited())
    most = (time.monotonic() - begun) / 0.05
    assert found == [True] * 100 + [False] * 100 + [True] * 100
    assert 2 <= store.looks <= most
    store.close()


def test_who_waits_is_told_where_the_database_cannot_answer(alone: Front) -> None:
    store = Store(alone.directory.store_path)
    store.close()
    with pytest.raises(sqlite3.Error):
        asyncio.run(Watch(store).has_news(1, -1, 20.0))


def test_a_tenant_has_so_many(alone: Front, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "_MOST_OF_TENANT", 1)
    watch = Watch(alone.store)
    with (
        watch.seat("a"),
        watch.seat("b"),
        watch.seat(None),
        watch.seat(None),
        pytest.raises(HTTPException, match=r"429.*1 streams of 'a' are open"),
        watch.seat("a"),
    ):
        pass
    with watch.seat("a"):
        pass


@pytest.mark.timeout(60)
def test_one_that_has_gone_makes_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Over real sockets."""
    monkeypatch.setattr(watching, "_MOST", 1)
    monkeypatch.setattr("alto_service.streaming._SILENCE_SECONDS", 0.1)  # then it is noticed
    with served(TimedConnection, tmp_path) as address:
        with opened(address, LISTEN) as first:
            assert first.recv(4096).startswith(b"HTTP/1.1 200")
            with opened(address, LISTEN) as second:
                answer = second.recv(4096)
                assert answer.startswith(b"HTTP/1.1 429")
                assert b"retry-after" in answer.lower()
        while True:
            with opened(address, LISTEN) as third:
                if third.recv(4096).startswith(b"HTTP/1.1 200"):
                    break
