"""What it adds to a pass that its backbone is split over several GPUs, from measured steps."""

from collections.abc import Iterable
from statistics import median

import pytest

from alto_runs.profile import GangRow, Row, read_profile, shipped_profile


def gangs(profile: str) -> list[GangRow]:
    return [row for row in read_profile(shipped_profile(profile)) if isinstance(row, GangRow)]


_SHARDED, _ALONE = "adapter-parallel", "one-gpu"
_FULL = 4096  # tokens of each GPU from which on it, and not its host, is what takes time
ROWS = gangs("h100x4.jsonl")
MODELS = ("Llama-3.1-8B", "Llama-3.2-1B")


def gathered_bytes_per_second(rows: Iterable[Row]) -> float:
    """Bytes received by a GPU over the seconds by which that makes its step longer.

    Gathers lie beside the arithmetic, and yet nearly all of their time is paid. Taken from points
    that were measured on one GPU as well, whose step is shared out.
    """
    found = [row for row in rows if isinstance(row, GangRow)]
    alone = {_point(row): row.seconds for row in found if row.method == _ALONE}
    rates = []
    for row in found:
        if row.method != _SHARDED or row.received_bytes is None or _point(row) not in alone:
            continue
        if row.jobs * row.batch_size * row.length >= _FULL * row.gpus:
            longer = row.seconds - alone[_point(row)] / row.gpus
            rates.append(row.received_bytes / longer)
    return median(rates)


def _point(row: GangRow) -> tuple[str, int, int, int, int]:
    return row.model.name, row.jobs, row.rank, row.batch_size, row.length


@pytest.mark.parametrize("model", MODELS)
def test_one_model_tells_the_step_of_another(model: str) -> None:
    """Full GPUs; within 3 % of the measured step."""
    rate = gathered_bytes_per_second(row for row in ROWS if row.model.name != model)
    full = {r.method: r for r in ROWS if (r.model.name, r.jobs, r.length) == (model, 32, 1024)}
    sharded, alone = full["adapter-parallel"], full["one-gpu"]
    assert sharded.received_bytes is not None
    predicted = alone.seconds / sharded.gpus + sharded.received_bytes / rate
    assert predicted == pytest.approx(sharded.seconds, rel=0.03)


def test_layers_that_stay_whole_shorten_a_step_by_what_they_need_not_receive() -> None:
    """Predicted from the run without any; another day, another machine of the kind."""
    rate = gathered_bytes_per_second(ROWS)
    found = [r for r in gangs("h100x4-whole-layers.jsonl") if (r.jobs, r.length) == (32, 1024)]
    full = {r.method: r for r in found if r.model.name == "Llama-3.1-8B"}
    sharded, alone = full["adapter-parallel"], full["one-gpu"]
    assert sharded.received_bytes is not None
    predicted = alone.seconds / sharded.gpus + sharded.received_bytes / rate
    assert predicted == pytest.approx(sharded.seconds, rel=0.03)
