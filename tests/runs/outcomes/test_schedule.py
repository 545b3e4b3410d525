"""Waiting, completion, fairness and use of GPUs, on histories that can be worked out by hand."""

import json
from dataclasses import asdict, fields, replace
from statistics import fmean

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from alto_policy.decisions import Decision, Launch, StartExecutor, StopExecutor
from alto_policy.events import (
    Departure,
    Event,
    ExecutorDown,
    ExecutorUp,
    JobLeft,
    TaskArrived,
    TimerFired,
)
from alto_policy.policies.fifo import FifoSettings
from alto_policy.runlog import Entry, Header, RunLog
from alto_policy.types import GpuId, JobId, TaskId
from alto_runs.outcomes.history import Residency, RunHistory, follow
from alto_runs.outcomes.lanes import assign_slots
from alto_runs.outcomes.metrics import TaskMetrics, measure, metrics_json
from alto_runs.outcomes.schedule import (
    jain,
    measure_schedule,
    measure_usage,
    occupied,
    percentile,
    task_times,
)
from tests.policy.cases import gpus as toy_gpus
from tests.policy.cases import job, memory, task

Stay = tuple[int, float, float]  # GPU, start, end


def history(
    *tasks: tuple[str, str, float, float | None, list[Stay]], end: float = 100.0
) -> RunHistory:
    """Of a log of tasks by name, tenant, arrival and start of their executor; a job for each stay.

    At one moment jobs leave before executors stop, and these before others start.
    """
    moments: list[tuple[float, int, Event, tuple[Decision, ...]]] = [(end, 9, TimerFired(end), ())]
    for name, tenant, arrival, start, stays in tasks:
        gpus = tuple(sorted({GpuId(gpu) for gpu, _, _ in stays})) or (GpuId(0),)
        jobs = [job(f"{name}{i}") for i in range(max(1, len(stays)))]
        arrived = replace(task(name, jobs, len(gpus)), tenant=tenant)
        moments.append((arrival, 0, TaskArrived(arrival, arrived), ()))
        for spec, (gpu, begin, leave) in zip(jobs, stays, strict=False):
            launch = Launch(arrived.id, GpuId(gpu), (spec.id,))
            moments.append((begin, 6, TimerFired(begin), (launch,)))
            moments.append((leave, 1, JobLeft(leave, spec.id, Departure.FINISHED), ()))
        if start is not None:
            last = max(leave for _, _, leave in stays)
            moments.append((start, 4, TimerFired(start), (StartExecutor(arrived.id, gpus),)))
            moments.append((start, 5, ExecutorUp(start, arrived.id, memory(99)), ()))
            moments.append((last, 2, TimerFired(last), (StopExecutor(arrived.id),)))
            moments.append((last, 3, ExecutorDown(last, arrived.id), ()))
    moments.sort(key=lambda moment: moment[:2])
    entries = tuple(Entry(event, decisions) for _, _, event, decisions in moments)
    return follow(RunLog(Header(policy=FifoSettings(), gpus=toy_gpus(2)), entries))


TWO = history(
    ("a", "ann", 0.0, 10.0, [(0, 10.0, 30.0), (0, 20.0, 50.0)]),
    ("b", "bob", 20.0, 60.0, [(0, 60.0, 80.0), (1, 65.0, 100.0)]),
    ("c", "bob", 90.0, None, []),
)


def test_times_of_tasks() -> None:
    a, b, c = task_times(TWO)
    assert (a.completion, a.queueing, a.slowdown) == (50, 10, 50 / 40)
    assert (b.completion, b.queueing, b.slowdown, b.num_gpus) == (80, 40, 2, 2)
    assert (c.completion, c.queueing, c.slowdown) == (None, None, None)


def test_measures_over_tasks_that_ended() -> None:
    found = measure_schedule(task_times(TWO))
    assert (found.tasks, found.tasks_ended) == (3, 2)
    assert found.completion_mean == 65
    assert found.completion_p90 == pytest.approx(77)
    assert found.queueing_mean == 25
    assert found.slowdown_mean == pytest.approx(1.625)
    assert found.fairness == pytest.approx((1.25 + 2) ** 2 / (2 * (1.25**2 + 2**2)))


def test_one_tenant_is_judged_by_tasks() -> None:
    one = history(("a", "", 0.0, 0.0, [(0, 0.0, 10.0)]), ("b", "", 0.0, 10.0, [(0, 10.0, 20.0)]))
    assert measure_schedule(task_times(one)).fairness == pytest.approx(jain([1.0, 2.0]))


def test_nothing_has_ended() -> None:
    found = measure_schedule(task_times(history(("a", "", 0.0, None, []))))
    assert found.completion_mean is found.fairness is found.queueing_p99 is None


def test_use_over_time() -> None:
    usage = measure_usage(TWO)
    at = dict(zip(usage.times.tolist(), range(len(usage.times)), strict=True))
    assert [usage.allocated[at[t]] for t in (0, 10, 50, 60, 100)] == [0, 1, 0, 2, 0]
    assert [usage.busy[at[t]] for t in (20, 30, 50, 65, 80)] == [1, 1, 0, 2, 1]
    assert [usage.adapters[at[t]] for t in (10, 20, 30, 65, 80)] == [1, 2, 1, 2, 1]
    busy = measure(TWO).overall.busy_gpu_seconds
    assert usage.mean(usage.busy) == pytest.approx(busy / TWO.end)
    assert busy == 40 + 20 + 35


def test_the_only_job_of_a_wide_task_keeps_all_its_gpus_busy() -> None:
    log = [
        Entry(TaskArrived(0.0, task("w", [job("w0")], 2)), ()),
        Entry(TimerFired(1.0), (StartExecutor(TaskId("w"), (GpuId(0), GpuId(1))),)),
        Entry(
            ExecutorUp(1.0, TaskId("w"), memory(99)),
            (Launch(TaskId("w"), GpuId(0), (JobId("w0"),)),),
        ),
        Entry(JobLeft(11.0, JobId("w0"), Departure.FINISHED), ()),
    ]
    wide = follow(RunLog(Header(policy=FifoSettings(), gpus=toy_gpus(2)), tuple(log)))
    assert measure(wide).overall.busy_gpu_seconds == 20
    assert measure_usage(wide).busy.tolist() == [0, 2, 0]
    slots = assign_slots(wide)
    assert {gpu: [(s.stay.start, s.stay.end) for s in of_gpu] for gpu, of_gpu in slots.items()} == {
        0: [(1.0, 11.0)],
        1: [(1.0, 11.0)],
    }


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 20), st.integers(1, 9)), max_size=12))
def test_occupied_stretches_are_the_union_of_the_stays(sizes: list[tuple[int, int, int]]) -> None:
    stays = [Residency(GpuId(gpu), float(s), float(s + n), None) for gpu, s, n in sizes]
    seconds = {(stay.gpu, t) for stay in stays for t in range(int(stay.start), int(stay.end))}
    stretches = list(occupied(stays))
    assert sum(end - start for start, end in stretches) == len(seconds)
    assert all(start < end for start, end in stretches)


@pytest.mark.parametrize(
    ("values", "index"),
    [([3.0, 3.0, 3.0], 1.0), ([9.0, 0.0, 0.0], 1 / 3), ([], None), ([0.0], None)],
)
def test_jain(values: list[float], index: float | None) -> None:
    assert jain(values) == (None if index is None else pytest.approx(index))


def test_percentiles() -> None:
    values = [5.0, 1.0, 4.0, 2.0]
    assert percentile(values, 50) == np.median(values) == fmean([2, 4])
    assert percentile([], 50) is None


def test_the_file_of_measures_tells_how_tasks_were_served() -> None:
    found = measure(TWO)
    record = json.loads("".join(metrics_json(found)))
    assert record["schedule"]["completion_mean"] == 65
    assert record["tasks"] == {name: asdict(measures) for name, measures in found.tasks.items()}
    assert record["tasks"]["c"]["jobs_by_outcome"]["queued"] == 1
    assert {name: len(measures) for name, measures in record["tasks"].items()} == {
        name: len(fields(TaskMetrics)) for name in "abc"
    }
    assert record["tasks"]["b"]["jobs_by_outcome"]["finished"] == 2
    assert record["tasks"]["a"]["makespan_seconds"] == 50


def test_a_slot_is_the_lowest_that_is_free() -> None:
    stays = [(0, 0.0, 5.0), (0, 0.0, 10.0), (0, 6.0, 9.0), (0, 7.0, 8.0), (1, 7.0, 8.0)]
    slots = assign_slots(history(("a", "", 0.0, 0.0, stays)))
    assert {gpu: [slot.lane for slot in of_gpu] for gpu, of_gpu in slots.items()} == {
        0: [0, 1, 0, 2],
        1: [0],
    }
