from dataclasses import replace

import pytest

from alto_runs.costs.gathering import gathered_bytes_per_second
from alto_runs.errors import UserError
from alto_runs.profile import GangRow, read_profile, shipped_profile

ROWS = [row for row in read_profile(shipped_profile("h100x4.jsonl")) if isinstance(row, GangRow)]
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


def test_points_whose_host_takes_the_time_do_not_count() -> None:
    few = [replace(row, length=row.length // 4) for row in ROWS]
    with pytest.raises(UserError, match="full GPUs"):
        gathered_bytes_per_second(few)
