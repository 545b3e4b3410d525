"""A study's part of the log as server-sent events, while it grows."""

import asyncio
from collections.abc import AsyncIterator

from fastapi.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from alto_service.front import Front
from alto_service.watching import Watch

__all__ = ["EntryStream", "stream_entries"]

_SILENCE_SECONDS = 15.0  # after which a comment tells that the connection still holds
_PAGE = 200


class EntryStream(StreamingResponse):
    """Takes a seat of its tenant's while it lasts."""

    def __init__(
        self, front: Front, watch: Watch, tenant: str | None, number: int, after: int
    ) -> None:
        entries = stream_entries(front, watch, number, after)
        super().__init__(entries, media_type="text/event-stream")
        self._watch = watch
        self._tenant = tenant

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self._watch.seat(self._tenant):
            await super().__call__(scope, receive, send)


async def stream_entries(front: Front, watch: Watch, number: int, after: int) -> AsyncIterator[str]:
    """Entries after that number in their order, and the study's status when it has ended.

    An event's id is the entry's number: a client that comes back with the last one misses nothing.
    """
    while True:
        row = await asyncio.to_thread(front.store.study, number)
        entries = await asyncio.to_thread(front.store.entries, number, after=after, limit=_PAGE)
        if entries:  # a page at a time: between two of them it is seen that a client has gone
            yield "".join(f"id: {id_}\nevent: entry\ndata: {line}\n\n" for id_, line in entries)
            after = entries[-1][0]
        elif row is None:
            return
        elif row.state.is_final:
            yield f"event: end\ndata: {front.status(row).model_dump_json()}\n\n"
            return
        else:
            while not await watch.has_news(number, after, _SILENCE_SECONDS):
                yield ": still there\n\n"
