"""What it adds to a pass that its backbone is split over several GPUs, from measured steps."""

from collections.abc import Iterable
from statistics import median

from alto_runs.errors import UserError
from alto_runs.profile import GangRow, Row

__all__ = ["gathered_bytes_per_second"]

_SHARDED, _ALONE = "adapter-parallel", "one-gpu"
_FULL = 4096  # tokens of each GPU from which on it, and not its host, is what takes time


def gathered_bytes_per_second(rows: Iterable[Row]) -> float:
    """Bytes received by a GPU over the seconds by which that makes its step longer.

    Gathers lie beside the arithmetic, and yet nearly all of their time is paid. Taken from points
    that were measured on one GPU as well, whose step is shared out. Raises UserError without any.
    """
    gangs = [row for row in rows if isinstance(row, GangRow)]
    alone = {_point(row): row.seconds for row in gangs if row.method == _ALONE}
    rates = []
    for row in gangs:
        if row.method != _SHARDED or row.received_bytes is None or _point(row) not in alone:
            continue
        if row.jobs * row.batch_size * row.length >= _FULL * row.gpus:
            longer = row.seconds - alone[_point(row)] / row.gpus
            rates.append(row.received_bytes / longer)
    if not rates or min(rates) <= 0:
        raise UserError("profile: expected GangRows of full GPUs, in shards and on one GPU")
    return median(rates)


def _point(row: GangRow) -> tuple[str, int, int, int, int]:
    return row.model.name, row.jobs, row.rank, row.batch_size, row.length
