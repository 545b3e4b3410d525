"""What a policy believes of a task's duration, against what the simulator makes of it."""

from dataclasses import replace

import pytest

from alto_policy.decisions import Launch, StartExecutor
from alto_policy.events import Departure, ExecutorUp, JobLeft, TaskArrived
from alto_policy.ledger.cluster import Cluster
from alto_policy.placement.planner import Planner
from alto_policy.policies import Settings
from alto_policy.policies.alto import AltoSettings
from alto_policy.policies.fifo import FifoSettings
from alto_policy.runlog import Entry
from alto_policy.types import GpuId, Task
from alto_policy.view import ClusterView
from alto_runs.costs.durations import ExpectedExits, TaskDurations
from alto_runs.costs.kinds import KindDurations
from alto_sim.simulate import play
from alto_sim.times.step_time import StepTime
from alto_sim.workloads.workload import Workload
from tests.runs.costs.profiles import ROOMY
from tests.sim.cases import NOW, Flat, gpus, job, task
from tests.sim.schedules.mixed_cases import MIXED, mixture

TIMES = StepTime(per_pass=1.0, per_token=0.5, per_evaluation=0.25)
NARROW = task("n", [job(f"n{i}", 40, 10, batch_size=1 + i % 4) for i in range(60)])
WIDE = task("w", [job(f"w{i}", 40, 10, accumulation=1 + i % 2) for i in range(160)], num_gpus=2)


def simulated(of: Task, settings: Settings) -> float:
    workload = Workload(
        arrivals=(TaskArrived(0.0, of),),
        curves=Flat(),
        step_time=TIMES,
        latencies=NOW,
        memory=ROOMY,
    )
    entries: list[Entry] = []
    play(workload, settings, gpus(of.num_gpus), entries.append)
    return entries[-1].event.t


@pytest.mark.parametrize("of", [NARROW, WIDE], ids=["one GPU", "two GPUs"])
def test_a_task_without_exits_takes_as_long_as_was_believed(of: Task) -> None:
    believed = TaskDurations(TIMES, lambda of: ROOMY).seconds(of)
    assert believed == pytest.approx(simulated(of, FifoSettings()), rel=0.05)


@pytest.mark.parametrize("of", [NARROW, WIDE], ids=["one GPU", "two GPUs"])
def test_expected_exits_shorten_the_belief_as_they_shorten_the_run(of: Task) -> None:
    exits = ExpectedExits(warmup=0.1, keep=0.25)
    believed = TaskDurations(TIMES, lambda of: ROOMY, exits=exits).seconds(of)
    run = simulated(of, AltoSettings(warmup=0.1, keep=0.25))
    assert believed == pytest.approx(run, rel=0.25)
    assert believed < 0.6 * TaskDurations(TIMES, lambda of: ROOMY).seconds(of)


@pytest.mark.parametrize("exits", [None, ExpectedExits(warmup=0.1, keep=0.25)])
def test_what_was_told_before_changes_nothing(exits: ExpectedExits | None) -> None:
    """At each moment of runs on clusters of their own, as if asked for the first time."""
    durations = TaskDurations(TIMES, lambda of: ROOMY, exits=exits)
    tasks = [task(f"x{i}", [job(f"x{i}-{k}", 20 + k, 5) for k in range(6)]) for i in range(12)]
    shares = set()

    def remaining(of: Task, cluster: ClusterView) -> float:
        found = durations(of, cluster)
        assert found == TaskDurations(TIMES, lambda of: ROOMY, exits=exits)(of, cluster)
        shares.add(found / durations.seconds(of))
        return found

    for gap in (25.0, 40.0, 10.0):
        workload = Workload(
            arrivals=tuple(TaskArrived(gap * i, of) for i, of in enumerate(tasks)),
            curves=Flat(),
            step_time=TIMES,
            latencies=NOW,
            memory=ROOMY,
        )
        play(workload, FifoSettings(), gpus(3), lambda entry: None, Planner(remaining))
    assert len(shares) > 5


def test_a_belief_outlives_its_run() -> None:
    """In a second run of the task, of which less is done than of the first."""
    durations = TaskDurations(TIMES, lambda of: ROOMY)
    ended = [durations(NARROW, _with_ended(NARROW, count)) for count in (40, 20)]
    expected = [durations.seconds(NARROW) * left / 60 for left in (20, 40)]
    assert ended == pytest.approx(expected)


def _with_ended(of: Task, count: int) -> ClusterView:
    """A cluster on which the first jobs of the task have ended, one after another."""
    cluster = Cluster(gpus())
    cluster.apply(TaskArrived(0.0, of))
    cluster.commit(StartExecutor(of.id, (GpuId(0),)))
    cluster.apply(ExecutorUp(0.0, of.id, ROOMY))
    for each in of.jobs[:count]:
        cluster.commit(Launch(of.id, GpuId(0), (each.id,)))
        cluster.apply(JobLeft(1.0, each.id, Departure.FINISHED))
    return cluster


def test_what_is_left_falls_as_the_run_goes_on() -> None:
    """Asked whenever another task arrives; one GPU stays free, so that the planner is asked."""
    durations = TaskDurations(TIMES, lambda of: ROOMY)
    end = durations.seconds(NARROW)
    late = [task(f"x{i}", [job(f"x{i}", 1, 1)], num_gpus=2) for i in range(4)]
    times = [end * share for share in (0.2, 0.4, 0.6, 0.8)]
    seen: list[float] = []

    def remaining(of: Task, cluster: ClusterView) -> float:
        if of.id == NARROW.id:
            seen.append(durations(of, cluster))
        return durations(of, cluster)

    workload = Workload(
        arrivals=(
            TaskArrived(0.0, NARROW),
            *(TaskArrived(t, of) for t, of in zip(times, late, strict=True)),
        ),
        curves=Flat(),
        step_time=TIMES,
        latencies=NOW,
        memory=ROOMY,
    )
    play(workload, FifoSettings(), gpus(2), lambda entry: None, Planner(remaining))
    assert seen[:5] == pytest.approx([end, *(end - t for t in times)], abs=0.1 * end)


def test_where_a_task_tells_its_speeds_one_kind_is_worked_out() -> None:
    """On a slow kind, and on several together, it takes as much longer as it tells."""
    worked_out: list[object] = []

    class Counting(TaskDurations):
        def seconds(self, task: Task) -> float:
            worked_out.append(self)
            return super().seconds(task)

    kinds = mixture()
    costs = kinds.costs
    of = KindDurations(kinds, lambda own: Counting(own, own.memory_model))
    narrow, wide = (
        of.weighed(
            replace(
                task(name, [job(f"{name}{i}", 6, 2) for i in range(4)], width), kinds=tuple(costs)
            )
        )
        for name, width in (("narrow", 2), ("wide", 5))
    )
    assert narrow.speeds == (1.0, 0.5, 0.25)
    cluster = Cluster(MIXED)
    for one, gang in ((narrow, (0, 1)), (wide, (2, 3, 4, 6, 7))):
        cluster.apply(TaskArrived(0.0, one))
        worked_out.clear()
        waiting = of(one, cluster)
        cluster.commit(StartExecutor(one.id, tuple(GpuId(number) for number in gang)))
        found = of(one, cluster)
        assert len(set(worked_out)) == 1
        assert found == pytest.approx(waiting / 0.25)
        slowest = TaskDurations(costs["tiny"], costs["tiny"].memory_model)
        assert found == pytest.approx(slowest.seconds(one))
