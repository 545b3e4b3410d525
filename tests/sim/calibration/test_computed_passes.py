"""A recorded run simulated once more makes the passes that its executor made, one by one."""

from dataclasses import replace
from math import fsum
from pathlib import Path

import pytest

from alto_runs.files.executor_work import TrainingWork
from alto_sim.computed_passes import computed_of
from experiments.fidelity.real_runs import Recording, read_recording

TRACES = Path("traces")
RUNS = [
    "recorded/qasc-question-generation-1000-alto",
    "recorded/qasc-preferences-alto",  # pairs
    "h200/ropes-alto",  # passes that are launched each time, and a bank that moves
    "batches/qasc-question-generation-1000-fifo",
    "speed/llama-3.2-1b-fifo",
]


def trained(run: Recording) -> list[TrainingWork]:
    return [row for row in run.work if isinstance(row, TrainingWork)]


@pytest.mark.parametrize("name", RUNS)
def test_replays_compute_the_rows_that_the_executor_told(name: str) -> None:
    run = read_recording(TRACES / name)
    rows = trained(run)
    assert len(run.computed) == len(rows)
    whole = 0
    for row, computed in zip(rows, run.computed, strict=True):
        assert computed.passes == row.passes
        if row.replayed == row.passes:
            assert fsum(n * passes for n, passes in computed.rows.items()) == row.replayed_rows
            whole += 1
    assert whole > len(rows) / 3


def test_of_a_run_that_made_other_passes_nothing_is_known() -> None:
    run = read_recording(TRACES / RUNS[0])
    assert computed_of(run.log, run.work, {}) == ()
    first, *rest = trained(run)
    longer = [replace(first, passes=first.passes + 1), *rest]
    assert computed_of(run.log, longer, run.lengths) == ()
    two = replace(run.header, gpus=run.header.gpus * 2)
    assert computed_of(replace(run.log, header=two), run.work, run.lengths) == ()
