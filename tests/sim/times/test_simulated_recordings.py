"""Which passes are recorded and what replays compute, by hand."""

from dataclasses import replace

import pytest

from alto_policy.events import TaskArrived
from alto_policy.types import Job, Task, TokenCounts
from alto_sim.cluster.backend import SimBackend
from alto_sim.times.overheads import NO_OVERHEADS
from alto_sim.times.recorded_passes import Recordings
from alto_sim.times.step_time import RowTimes, StepTime
from alto_sim.workloads.workload import Workload
from tests.sim.cases import MEMORY, NOW, Flat, gpus, job, news, task

ROWS = RowTimes(per_row=0.01, per_row_beyond=0.03, filling=2048)


def counted(jobs: list[Job], longest: int = 100) -> Task:
    """Every sample has 100 tokens unless the longest has more."""
    counts = TokenCounts(per_sample=100.0, validation=1)
    return replace(task("t", jobs), max_length=longest, tokens=counts)


LARGE, SMALL = job("large", 1, 1, batch_size=30), job("small", 1, 1, batch_size=10)
TASK = counted([LARGE, SMALL])
EMPTY = Recordings(task=TASK, compiling=7.0, recording=5.0, rows=ROWS)


def test_a_size_costs_a_recording_with_room_for_more_and_the_first_one_compiles() -> None:
    """A sixteenth more than 3,000 is 3,187, and that in steps of 512 is 3,584."""
    more, later = EMPTY.after([LARGE], 0.0, 4)
    assert set(later.wasted) == {3584}
    assert more == pytest.approx(12.0 + 4 * 584 * (0.01 + 0.03))
    more, _ = later.after([LARGE], 0.0, 1)
    assert more == pytest.approx(584 * 0.04)


def test_a_batch_needs_no_room_to_spare() -> None:
    _, large = EMPTY.after([LARGE], 0.0, 4)
    fuller = job("fuller", 1, 1, batch_size=35)
    assert large.after([fuller], 0.0, 1)[1].wasted == {3584: 0}


def test_a_smaller_batch_is_computed_in_a_larger_recording_until_that_has_wasted_enough() -> None:
    """Room for 1,000 tokens is 1,536 rows: 2,048 are wasted in each pass, and 48 passes waste less
    than 100,000."""
    _, large = EMPTY.after([LARGE], 0.0, 4)
    waste = 2584 * 0.01 + (3584 - 2048) * 0.03
    more, later = large.after([SMALL], 0.0, 48)
    assert more == pytest.approx(48 * waste)
    assert set(later.wasted) == {3584}
    more, later = large.after([SMALL], 0.0, 50)
    assert more == pytest.approx(48 * waste + 5.0 + 2 * 536 * 0.01)
    assert later.wasted == {3584: 0, 1536: 0}


@pytest.mark.parametrize("longest", [100, 300])
def test_asking_changes_nothing_and_a_stretch_may_be_cut(longest: int) -> None:
    _, large = replace(EMPTY, task=counted([LARGE, SMALL], longest)).after([LARGE], 0.0, 4)
    whole = large.after([SMALL], 0.0, 50)
    more, half = large.after([SMALL], 0.0, 20)
    rest, later = half.after([SMALL], 0.0, 30)
    assert large.after([SMALL], 0.0, 50) == whole
    assert more + rest == pytest.approx(whole[0])
    assert later == whole[1]


def test_batches_that_vary_are_of_more_sizes() -> None:
    """More of them where all jobs train on the same samples."""
    jobs = [replace(LARGE, id=job(f"j{i}", 1, 1).id) for i in range(8)]
    apart = [
        replace(one, hyperparameters=replace(one.hyperparameters, seed=i))
        for i, one in enumerate(jobs)
    ]
    sizes = [
        len(replace(EMPTY, task=counted(jobs, longest)).after(some, 0.0, 64)[1].wasted)
        for some, longest in ((jobs, 100), (apart, 200), (jobs, 200), (jobs, 400))
    ]
    assert sizes == sorted(sizes)
    assert sizes[0] == 1 < sizes[2]


def test_a_slow_gpu_records_slowly() -> None:
    assert replace(EMPTY, slowdown=2.0).after([LARGE], 0.0, 3)[0] == pytest.approx(
        2 * EMPTY.after([LARGE], 0.0, 3)[0]
    )


def test_a_run_whose_passes_are_recorded() -> None:
    """Room for 4,000 tokens together is 4,608 rows; all is recorded before the first report."""
    times = StepTime(per_pass=1.0, per_token=0.0, per_evaluation=0.0, per_rank=0.5, rows=ROWS)
    jobs = [job("a", 4, 2, batch_size=30), job("b", 4, 2, batch_size=10)]
    workload = Workload(
        arrivals=(TaskArrived(0.0, counted(jobs)),),
        curves=Flat(),
        step_time=times,
        latencies=NOW,
        overheads=replace(NO_OVERHEADS, recording=5.0, compiling=7.0),
        memory=replace(MEMORY, capacity=10**9),
    )
    told = [(t, what) for t, what in news(SimBackend(workload, gpus())) if "@" in what]
    ranks = sum(one.hyperparameters.rank for one in jobs)
    each = 1.0 + 0.5 * ranks + ROWS.seconds(4608)
    assert [what for _, what in told] == ["a@2", "b@2", "a@4", "b@4"]
    first, second = 12.0 + 2 * each, 12.0 + 4 * each
    assert [t for t, _ in told] == pytest.approx([first, first, second, second])
