"""A study's part of the log as server-sent events, while it grows."""

import asyncio
from collections.abc import AsyncIterator

from alto_service.front import Front

__all__ = ["stream_entries"]

_POLL_SECONDS = 0.25
_SILENCE_SECONDS = 15.0  # after which a comment tells that the connection still holds
_PAGE = 200


async def stream_entries(front: Front, number: int, after: int) -> AsyncIterator[str]:
    """Entries after that number in their order, and the study's status when it has ended.

    An event's id is the entry's number: a client that comes back with the last one misses nothing.
    """
    silent = 0.0
    while True:
        row = await asyncio.to_thread(front.store.study, number)
        entries = await asyncio.to_thread(front.store.entries, number, after=after, limit=_PAGE)
        if entries:  # a page at a time: between two of them it is seen that a client has gone
            yield "".join(f"id: {id_}\nevent: entry\ndata: {line}\n\n" for id_, line in entries)
            after = entries[-1][0]
        if not entries and (row is None or row.state.is_final):
            if row is not None:
                yield f"event: end\ndata: {front.status(row).model_dump_json()}\n\n"
            return
        if entries:
            silent = 0.0
            continue
        if silent >= _SILENCE_SECONDS:
            silent = 0.0
            yield ": still there\n\n"
        await asyncio.sleep(_POLL_SECONDS)
        silent += _POLL_SECONDS
