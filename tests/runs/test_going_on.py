"""With which study a run goes on that was begun with another."""

import pytest

from alto_runs.going_on import elsewhere, executor_difference
from alto_runs.study import ExecutorSpec

BEGUN = ExecutorSpec(
    device="cpu", dtype="float32", threads=2, gpus=2, max_jobs=5, optimizer_states="int8"
)


@pytest.mark.parametrize(
    ("now", "difference"),
    [
        pytest.param(ExecutorSpec(), None, id="all is left open"),
        pytest.param(ExecutorSpec(device="auto", dtype="auto", threads=None), None, id="in words"),
        pytest.param(ExecutorSpec(threads=2, optimizer_states="int8"), None, id="the same"),
        pytest.param(ExecutorSpec(gpus=1, max_jobs=9, memory_gb=3), None, id="other room"),
        pytest.param(ExecutorSpec(threads=1), "executor.threads 2, not 1", id="other threads"),
        pytest.param(
            ExecutorSpec(optimizer_states="float32"),
            "executor.optimizer_states 'int8', not 'float32'",
            id="the default, written out",
        ),
    ],
)
def test_executors(now: ExecutorSpec, difference: str | None) -> None:
    assert executor_difference(now, BEGUN) == difference


def test_how_much_room_there_is_is_told_anew() -> None:
    found = elsewhere(BEGUN, ExecutorSpec(gpus=1, memory_gb=3))
    assert (found.gpus, found.max_jobs, found.memory_gb) == (1, None, 3)
    assert (found.threads, found.optimizer_states) == (2, "int8")
