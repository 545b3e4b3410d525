from dataclasses import replace

import pytest

from alto_runs.costs.gathering import gathered_bytes_per_second
from alto_runs.errors import UserError
from alto_runs.profile import GangRow, read_profile, shipped_profile


def gangs(profile: str) -> list[GangRow]:
    return [row for row in read_profile(shipped_profile(profile)) if isinstance(row, GangRow)]


ROWS = gangs("h100x4.jsonl")
MODELS = ("Llama-3.1-8B", "Llama-3.2-1B")


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


def test_points_whose_host_takes_the_time_do_not_count() -> None:
    few = [replace(row, length=row.length // 4) for row in ROWS]
    with pytest.raises(UserError, match="full GPUs"):
        gathered_bytes_per_second(few)
