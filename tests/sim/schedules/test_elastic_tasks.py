"""Tasks that take other numbers of GPUs while they train, on a simulated cluster."""

import random
from collections.abc import Sequence
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from alto_policy.controller import Controller, replay, run
from alto_policy.decisions import Decision, Resize, StartExecutor, Stop
from alto_policy.dispatch import Dispatch
from alto_policy.events import (
    Departure,
    Event,
    ExecutorDown,
    ExecutorUp,
    JobLeft,
    TaskArrived,
    TaskCancelled,
)
from alto_policy.ledger.cluster import Cluster
from alto_policy.memory import MemoryModel
from alto_policy.policies import Settings, build
from alto_policy.policies.alto import AltoSettings
from alto_policy.policies.elastic import ElasticSettings
from alto_policy.policies.fifo import FifoSettings
from alto_policy.policies.shared import SharedSettings
from alto_policy.runlog import Entry
from alto_policy.tenants import Tenant
from alto_policy.types import Task, TaskId
from alto_policy.view import ClusterView, ExecutorStatus, Status
from alto_policy.yielding import stop_if_empty, yield_gpus
from alto_runs.own_policy import own_policy
from alto_sim.cluster.backend import SimBackend
from alto_sim.machines.failures import Faults
from alto_sim.machines.hardware import gpus_of
from alto_sim.machines.latencies import Latencies
from alto_sim.simulate import play
from alto_sim.times.step_time import StepTime
from alto_sim.workloads.workload import Workload
from tests.sim.cases import MEMORY, NOW, Flat, job, task
from tests.sim.schedules.audit import Audit
from tests.sim.schedules.test_conservation import FAULTS, LATENCIES

WIDTHS = ((), (1, 2, 3), (1, 3), (2, 4, 6), (1, 2, 3, 4, 5, 6))
WITHIN = (
    FifoSettings(),
    AltoSettings(warmup=0.3),
    SharedSettings(tenants=(Tenant(name="a", max_gpus=2), Tenant(name="b", share=2.0))),
)


def workload(seed: int, *, faults: Faults | None = None, latencies: Latencies = NOW) -> Workload:
    dice = random.Random(seed)
    tasks: list[Task] = []
    for name in "pqrstuv":
        jobs = [
            job(f"{name}{i}", dice.randint(4, 40), dice.randint(1, 4), batch_size=1 + i % 3)
            for i in range(dice.randint(1, 8))
        ]
        widths = dice.choice(WIDTHS)
        least = widths[0] if widths else dice.choice([1, 2])
        wide = task(name, jobs, least)
        tasks.append(replace(wide, widths=widths, tenant=dice.choice("ab")))
    arrivals = [TaskArrived(float(dice.choice([0, 0, 20, 40])), each) for each in tasks]
    gone = dice.choice(arrivals)
    return Workload(
        arrivals=tuple(arrivals),
        cancellations=(TaskCancelled(gone.t + dice.randint(0, 60), gone.task.id),),
        curves=Flat(),
        step_time=StepTime(per_pass=1.0, per_token=0.1, per_evaluation=0.5),
        latencies=latencies,
        memory=replace(MEMORY, capacity=5),
        faults=faults or Faults(),
    )


def audited(entries: Sequence[Entry], seed: int) -> None:
    audit = Audit(6)
    audit.follow(entries, conserves_work=False)
    audit.check_end()
    assert set(audit.jobs) == {job.id for a in workload(seed).arrivals for job in a.task.jobs}
    starts = [d.gpus for e in entries for d in e.decisions if isinstance(d, StartExecutor)]
    assert all(len({gpu // 3 for gpu in gang}) == 1 for gang in starts)


@settings(max_examples=150)
@given(
    seed=st.integers(0, 2**32),
    within=st.sampled_from(WITHIN),
    payback=st.sampled_from([0.0, 0.5, 5.0]),
    latencies=LATENCIES,
    faults=FAULTS,
)
def test_nothing_is_over_committed_lost_or_doubled(
    seed: int,
    within: FifoSettings | AltoSettings | SharedSettings,
    payback: float,
    latencies: Latencies,
    faults: Faults,
) -> None:
    chosen = ElasticSettings(within=within, payback=payback, round_seconds=3.0)
    entries: list[Entry] = []
    gpus = gpus_of(6, gpus_per_node=3)
    play(workload(seed, faults=faults, latencies=latencies), chosen, gpus, entries.append)
    audited(entries, seed)
    assert replay(entries, Controller(build(chosen), Cluster(gpus))) is None


class Whims(Dispatch):
    """Resizes whom it likes when it likes; some of those that train begin anew at once."""

    same_node = True

    def __init__(self, seed: int) -> None:
        super().__init__()
        self._dice = random.Random(seed)
        self._yielding: set[TaskId] = set()

    def observe(self, event: Event, cluster: ClusterView) -> tuple[Decision, ...]:
        if isinstance(event, JobLeft) and cluster.task_of(event.job).id in self._yielding:
            return tuple(stop_if_empty(cluster.task_of(event.job).id, cluster))
        if isinstance(event, ExecutorDown):
            self._yielding.discard(event.task)
        decisions = super().observe(event, cluster)
        if not cluster.tasks():
            return decisions
        task = self._dice.choice(list(cluster.tasks().values()))
        executor = cluster.executor(task.id)
        is_over = len(cluster.jobs(task.id, Status.ENDED)) == len(task.jobs)
        if decisions or not task.widths or is_over or self._dice.random() < 0.5:
            return decisions
        resize = Resize(task.id, self._dice.choice([w for w in task.widths if w <= 3]))
        if executor is None or executor.status is not ExecutorStatus.UP or self._yielding:
            return (resize,)
        self._yielding.add(task.id)
        return (resize, *yield_gpus(task.id, cluster))


@settings(max_examples=50)
@given(seed=st.integers(0, 2**32), latencies=LATENCIES, faults=FAULTS)
def test_so_it_is_whatever_a_policy_asks_for(
    seed: int, latencies: Latencies, faults: Faults
) -> None:
    entries: list[Entry] = []
    gpus = gpus_of(6, gpus_per_node=3)
    work = replace(workload(seed, faults=faults, latencies=latencies), cancellations=())
    run(Controller(Whims(seed), Cluster(gpus), entries.append), SimBackend(work, gpus))
    audited(entries, seed)
    assert replay(entries, Controller(Whims(seed), Cluster(gpus))) is None


ANY = (1, 2, 3, 4)
LOAD = 3.0  # seconds


def simulated(
    *tasks: tuple[float, str, int, int],
    widths: tuple[int, ...] = ANY,
    payback: float = 5.0,
    policy: Settings | None = None,
    step_time: StepTime | None = None,
    kind: type[Workload] = Workload,
) -> list[Entry]:
    """Tasks of an arrival, a name, so many jobs and so many steps of a second, on four GPUs. The
    name begins with that of the tenant. The first job has all its steps, the others a fifth of
    them where they are negative."""
    work = kind(
        arrivals=tuple(
            TaskArrived(t, replace(task(name, jobs), widths=widths, tenant=name[0]))
            for t, name, count, steps in tasks
            for jobs in ([job(f"{name}.{i}", _steps(steps, i), 4) for i in range(count)],)
        ),
        curves=Flat(),
        step_time=step_time or StepTime(per_pass=0.1, per_token=0.9, per_evaluation=0.0),
        latencies=replace(NOW, load=LOAD),
        memory=replace(MEMORY, capacity=8),
    )
    entries: list[Entry] = []
    elastic = ElasticSettings(within=FifoSettings(), payback=payback, round_seconds=5.0)
    play(work, policy or elastic, gpus_of(4), entries.append)
    return entries


def _steps(steps: int, number: int) -> int:
    return -steps // 5 if steps < 0 and number else abs(steps)


def starts(entries: Sequence[Entry]) -> list[tuple[str, int]]:
    """Who had how many GPUs, one after another."""
    decisions = [decision for entry in entries for decision in entry.decisions]
    return [(d.task, len(d.gpus)) for d in decisions if isinstance(d, StartExecutor)]


def test_a_task_gives_way_and_has_more_again_when_gpus_idle() -> None:
    entries = simulated((0.0, "a", 8, 200), (50.0, "b", 4, 50))
    assert starts(entries) == [("a", 4), ("a", 3), ("b", 1), ("a", 4)]
    alone = simulated((0.0, "a", 8, 200), (50.0, "b", 4, 50), widths=())
    assert starts(alone) == [("a", 1), ("b", 1)]
    assert entries[-1].event.t < 0.4 * alone[-1].event.t


def test_those_who_arrive_together_share() -> None:
    entries = simulated(*((0.0, name, 4, 20) for name in "abc"))
    assert sorted(starts(entries)[:3]) == [("a", 2), ("b", 1), ("c", 1)]
    ups = [entry.event.t for entry in entries if isinstance(entry.event, ExecutorUp)]
    assert ups[:3] == [LOAD] * 3


def test_nobody_begins_anew_for_less_than_it_costs() -> None:
    """Neither a task that is nearly done, nor one that was started for another reason just now."""
    short = [(0.0, "a", 8, 20), (36.0, "b", 4, 50)]
    assert starts(simulated(*short)) == [("a", 4), ("b", 4)]
    assert starts(simulated(*short, payback=0.0))[:3] == [("a", 4), ("a", 3), ("b", 1)]
    fresh = [(0.0, "a", 8, 20), (4.0, "b", 4, 50)]
    first = next(e.event.t for e in simulated(*fresh) if _is_down(e))
    assert first > LOAD + 5 * LOAD


def _is_down(entry: Entry) -> bool:
    return isinstance(entry.event, ExecutorDown)


def test_the_example_of_ones_own_makes_room() -> None:
    policy = own_policy("examples/policy/making_room.py")
    entries = simulated((0.0, "a", 8, 200), (50.0, "b", 4, 50), policy=policy)
    assert starts(entries) == [("a", 4), ("a", 1), ("b", 1)]


def quotas(**of_tenants: int) -> ElasticSettings:
    tenants = tuple(Tenant(name=name, max_gpus=most) for name, most in of_tenants.items())
    rules = SharedSettings(tenants=tenants, within=FifoSettings())
    return ElasticSettings(within=rules, payback=1.0, round_seconds=5.0)


def test_a_tenant_has_no_more_than_its_quota() -> None:
    """Its own tasks make room for each other."""
    assert starts(simulated((0.0, "a", 8, 200), policy=quotas(a=3))) == [("a", 3)]
    both = simulated((0.0, "a", 8, 200), (50.0, "a2", 4, 50), policy=quotas(a=3))
    assert starts(both)[:3] == [("a", 3), ("a", 2), ("a2", 1)]


def test_nobody_makes_room_for_what_another_tenant_may_not_have() -> None:
    """The one that waits keeps nobody from what idles."""
    tasks = [(0.0, "x1", 1, 300), (1.0, "x2", 1, 9), (0.0, "a", 4, -200)]
    assert starts(simulated(*tasks, policy=quotas(x=1))) == [("x1", 1), ("a", 3), ("x2", 1)]
    tasks = [(0.0, "x1", 1, 300), (1.0, "x2", 1, 9), (0.0, "a", 8, 200), (0.0, "b", 8, 20)]
    order = starts(simulated(*tasks, policy=quotas(x=1)))
    assert order.index(("a", 3)) < order.index(("x2", 1))


def test_an_executor_is_as_wide_as_its_gpus() -> None:
    """To whoever says how long its passes take."""
    seen: list[int] = []

    class Noted(StepTime):
        def gang(self, task: Task) -> None:
            seen.append(task.num_gpus)

    simulated((0.0, "a", 4, 9), step_time=Noted(per_pass=1.0, per_token=0.0, per_evaluation=0.0))
    assert set(seen) == {4}


class Split(Workload):
    """Of backbones that are split over their GPUs: one of them alone holds no job."""

    def memory_of(self, task: Task) -> MemoryModel:
        return replace(MEMORY, capacity=12, fixed=12 // task.num_gpus)


def test_nobody_is_narrowed_to_gpus_that_do_not_hold_its_jobs() -> None:
    tasks = [(0.0, "a", 8, 200), *((50.0, name, 4, 50) for name in "bcd")]
    assert ("a", 1) in starts(simulated(*tasks))
    assert ("a", 1) not in starts(simulated(*tasks, kind=Split))


def test_who_came_up_on_too_few_begins_anew_on_more() -> None:
    """And no job of it is lost."""
    entries = simulated((0.0, "a", 8, 20), policy=FifoSettings(), kind=Split)
    assert starts(entries) == [("a", 1), ("a", 2)]
    ends = [entry.event.how for entry in entries if isinstance(entry.event, JobLeft)]
    assert set(ends) == {Departure.FINISHED}
    alone = simulated((0.0, "a", 8, 20), policy=FifoSettings(), kind=Split, widths=())
    decisions = [decision for entry in alone for decision in entry.decisions]
    assert sum(isinstance(one, Stop) for one in decisions) == 8


def test_no_more_gpus_than_there_are_jobs() -> None:
    assert starts(simulated((0.0, "a", 2, 20))) == [("a", 2)]
