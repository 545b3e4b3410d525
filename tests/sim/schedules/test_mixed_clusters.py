"""Clusters of several kinds of GPU: nothing is over-committed, and time is what it should be."""

import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alto_policy.controller import Controller, Policy, replay, run
from alto_policy.decisions import StartExecutor, WakeAt
from alto_policy.estimates import DurationEstimate, declared_seconds
from alto_policy.events import ExecutorUp, TaskArrived
from alto_policy.ledger.cluster import Cluster
from alto_policy.placement.planner import Planner
from alto_policy.placement.plans import Objective
from alto_policy.policies import SETTINGS, Settings, build
from alto_policy.policies.fifo import FifoSettings
from alto_policy.policies.sjf import SjfSettings
from alto_policy.runlog import Entry, dump_entry, load
from alto_policy.types import JobId, Task
from alto_runs.cpsat import CpSat
from alto_sim.cluster.backend import SimBackend
from alto_sim.conditions.belief import Belief, BelievedCosts
from alto_sim.conditions.molding import molded
from alto_sim.machines.failures import Faults
from alto_sim.machines.latencies import Latencies
from alto_sim.simulate import play
from alto_sim.workloads.workload import Workload, on_mixture
from tests.hash_seed import printed_under_two_seeds
from tests.sim.cases import NOW, Flat, job, task
from tests.sim.schedules.audit import Audit
from tests.sim.schedules.mixed_cases import BYTES, COUNTS, KIND_OF, MIXED, SPEEDS, mixture
from tests.sim.schedules.test_conservation import FAULTS, LATENCIES, PREEMPTIVE, RIGID, in_time

GOLDEN = Path("tests/golden/simulated")


def workload(
    seed: int, *, faults: Faults | None = None, latencies: Latencies = NOW, factor: float = 1.0
) -> Workload:
    """Rigid jobs and searches, some of which few kinds hold, or none; some are wider than each."""
    dice = random.Random(seed)
    tasks: list[Task] = []
    durations: dict[JobId, float] = {}
    for name in RIGID:
        seconds = dice.randint(1, 20)
        tasks.append(task(name, [job(name, seconds, 1)], dice.choice([1, 1, 2, 3, 5])))
        durations[JobId(name)] = float(seconds) * factor
    for name in ("s", "t", "u", "v", "w"):
        most = dice.choice([2, 5, 9, 12])  # bytes of its largest job
        jobs = [
            job(f"{name}{i}", dice.randint(4, 12), dice.randint(1, 4), batch_size=size)
            for i, size in enumerate([most, *dice.sample([1, 2, 3, 6], dice.randint(0, 3))])
        ]
        tasks.append(task(name, jobs, dice.choice([1, 1, 2, 4])))
    tasks.append(task("none", [job("none0", 5, 1, batch_size=10)]))
    tasks.append(task("wide", [job("wide0", 5, 1)], len(MIXED) + 1))
    dice.shuffle(tasks)
    made = Workload(
        arrivals=tuple(TaskArrived(dice.randint(0, 40) * factor, each) for each in tasks),
        curves=Flat(),
        latencies=latencies,
        durations=durations,
        speeds=SPEEDS,
        faults=faults or Faults(),
    )
    return on_mixture(made, mixture(factor), COUNTS)


def simulated(
    chosen: Settings, given_work: Workload, estimate: DurationEstimate = declared_seconds
) -> list[Entry]:
    entries: list[Entry] = []
    play(given_work, chosen, MIXED, entries.append, estimate=estimate)
    assert replay(entries, Controller(build(chosen, estimate=estimate), Cluster(MIXED))) is None
    return entries


@pytest.mark.parametrize("name", SETTINGS)
@settings(max_examples=12)
@given(seed=st.integers(0, 2**32), latencies=LATENCIES, faults=FAULTS)
def test_nothing_is_over_committed_lost_doubled_or_where_it_does_not_fit(
    name: str, seed: int, latencies: Latencies, faults: Faults
) -> None:
    audit = Audit(len(MIXED), kinds=KIND_OF, bytes=BYTES)
    entries = simulated(in_time(name, 1.0), workload(seed, faults=faults, latencies=latencies))
    audit.follow(entries, conserves_work=name not in (*PREEMPTIVE, "exclusive"))
    audit.check_end()
    assert {"wide0", "none0"} <= audit.stopped


PLACED = {
    "in gaps": {},
    "for the mean": {"objective": Objective.MEAN_COMPLETION},
    "reserved": {"reserve": True},
    "exact": {"improver": CpSat(limit=1e-3)},
}


@pytest.mark.parametrize(
    ("placed", "name"),
    [
        ("in gaps", "fifo"),
        ("for the mean", "alto"),
        ("reserved", "fifo"),
        ("exact", "alto"),  # with exits, and fewer events
    ],
)
@settings(max_examples=8)
@given(seed=st.integers(0, 2**32), latencies=LATENCIES, faults=FAULTS)
def test_what_is_placed_is_not_over_committed_lost_doubled_or_where_it_does_not_fit(
    placed: str, name: str, seed: int, latencies: Latencies, faults: Faults
) -> None:
    given_work = workload(seed, faults=faults, latencies=latencies)

    def policy() -> Policy:
        place = Planner(lambda task, _: declared_seconds(task), nodes=200, **PLACED[placed])  # type: ignore[arg-type]
        return build(SETTINGS[name](), place)

    entries: list[Entry] = []
    run(Controller(policy(), Cluster(MIXED), entries.append), SimBackend(given_work, MIXED))
    assert replay(entries, Controller(policy(), Cluster(MIXED))) is None
    audit = Audit(len(MIXED), kinds=KIND_OF, bytes=BYTES)
    audit.follow(entries, conserves_work=False)
    audit.check_end()
    assert {"wide0", "none0"} <= audit.stopped


@settings(max_examples=25)
@given(seed=st.integers(0, 2**32), widths=st.sampled_from([(1,), (2, 4), (1, 3, 9)]))
def test_chosen_widths_are_among_those_at_which_as_many_jobs_fit_as_at_any(
    seed: int, widths: tuple[int, ...]
) -> None:
    given_work = workload(seed)
    searches = tuple(each for each in given_work.arrivals if each.task.id not in RIGID)
    given_work = replace(given_work, arrivals=searches, durations={})
    costs = BelievedCosts(Belief(), given_work, Path())
    molded_work = molded(given_work, widths, COUNTS, costs)
    for before, after in zip(searches, molded_work.arrivals, strict=True):
        assert after.t == before.t
        asked = {w: replace(before.task, num_gpus=w, speeds=()) for w in widths}
        told = {w: mixture().holding(each, COUNTS) for w, each in asked.items()}
        fitting = {w: min((held(asked[w], kind) for kind in told[w]), default=0) for w in widths}
        width, kinds = after.task.num_gpus, set(after.task.kinds or ())
        if most := max(fitting.values()):
            assert fitting[width] == most
            assert kinds == set(told[width])
        else:
            assert width == before.task.num_gpus
    audit = Audit(len(MIXED), kinds=KIND_OF, bytes=BYTES)
    audit.follow(simulated(FifoSettings(), molded_work), conserves_work=True)
    audit.check_end()


@pytest.mark.parametrize(
    ("sizes", "widths", "chosen"),
    [
        pytest.param([6, 6, 6, 6], (1, 3), 3, id="as wide as it gains"),
        pytest.param([6, 3, 3, 3], (1, 4), 1, id="four that hold the largest there are not"),
    ],
)
def test_no_width_is_chosen_at_which_fewer_jobs_fit(
    sizes: Sequence[int], widths: Sequence[int], chosen: int
) -> None:
    jobs = [job(f"j{i}", 40, 1, batch_size=size) for i, size in enumerate(sizes)]
    made = Workload(arrivals=(TaskArrived(0.0, task("t", jobs)),), curves=Flat(), latencies=NOW)
    made = on_mixture(made, mixture(), COUNTS)
    costs = BelievedCosts(Belief(), made, Path())
    assert molded(made, widths, COUNTS, costs).arrivals[0].task.num_gpus == chosen


def held(task: Task, kind: str) -> int:
    return mixture().costs[kind].memory_model(task).num_fitting(task.jobs, task.max_length)


def gangs(entries: Sequence[Entry]) -> dict[str, tuple[int, ...]]:
    return {
        decision.task: decision.gpus
        for entry in entries
        for decision in entry.decisions
        if isinstance(decision, StartExecutor)
    }


@settings(max_examples=40)
@given(seed=st.integers(0, 2**32))
def test_a_rigid_job_lasts_as_its_slowest_gpu_lets_it(seed: int) -> None:
    given_work, audit = workload(seed), Audit(len(MIXED), kinds=KIND_OF, bytes=BYTES)
    entries = simulated(FifoSettings(), given_work)
    audit.follow(entries, conserves_work=True)
    for name, gang in gangs(entries).items():
        if name in RIGID:
            slowest = min(SPEEDS[KIND_OF[gpu]] for gpu in gang)
            assert audit.served[name] == given_work.durations[JobId(name)] / slowest


@pytest.mark.parametrize("name", SETTINGS)
@pytest.mark.parametrize("factor", [0.25, 8.0])
def test_scaling_all_times_scales_the_schedule(name: str, factor: float) -> None:
    """By powers of two, so that floats scale without a rounding."""
    loads = [replace(NOW, load=3.0 * by, stop=1.0 * by) for by in (1.0, factor)]
    one = simulated(in_time(name, 1.0), workload(7, latencies=loads[0]))
    other = simulated(
        in_time(name, factor),
        workload(7, latencies=loads[1], factor=factor),
        lambda task: declared_seconds(task) * factor,
    )
    assert [e.event.t * factor for e in one] == [e.event.t for e in other]
    decisions = [[d for d in e.decisions if not isinstance(d, WakeAt)] for e in one]
    assert decisions == [[d for d in e.decisions if not isinstance(d, WakeAt)] for e in other]
    assert len({KIND_OF[gpu] for gang in gangs(one).values() for gpu in gang}) == 3


def alone(width: int, sizes: Sequence[int]) -> tuple[list[Entry], tuple[str, ...] | None]:
    jobs = [job(f"j{i}", 4, 1, batch_size=size) for i, size in enumerate(sizes)]
    made = Workload(
        arrivals=(TaskArrived(0.0, task("t", jobs, width)),), curves=Flat(), latencies=NOW
    )
    made = on_mixture(made, mixture(), COUNTS)
    return simulated(SjfSettings(), made), made.arrivals[0].task.kinds


@pytest.mark.parametrize(
    ("width", "sizes", "kinds", "gang", "capacity", "seconds"),
    [
        pytest.param(1, [2], ("large", "small", "tiny"), (3,), 9, 4 * 1.25 + 0.5, id="fastest"),
        pytest.param(1, [2, 6], ("large",), (3,), 9, 4 * 2 + 1.0, id="all of its jobs"),
        pytest.param(
            4, [5, 6], ("large", "small"), (3, 4, 5, 6), 5, 4 * 3.25 + 1.0, id="some of its jobs"
        ),
        pytest.param(
            7, [1], ("large", "small", "tiny"), (0, 3, 4, 5, 6, 7, 8), 2, 4 * 4.5 + 2.0, id="all"
        ),
        pytest.param(1, [10], (), None, None, 0.0, id="none"),
        pytest.param(4, [6], (), None, None, 0.0, id="too few that hold it"),
    ],
)
def test_times_of_the_slowest_and_memory_of_the_smallest(
    width: int,
    sizes: Sequence[int],
    kinds: tuple[str, ...],
    gang: tuple[int, ...] | None,
    capacity: int | None,
    seconds: float,
) -> None:
    entries, found = alone(width, sizes)
    assert found == kinds
    assert gangs(entries).get("t") == gang
    ups = [e.event.memory.capacity for e in entries if isinstance(e.event, ExecutorUp)]
    assert ups == ([] if capacity is None else [capacity])
    assert entries[-1].event.t == seconds


def mixed_log(*names: str) -> list[str]:
    """On a late and unreliable cluster."""
    faults = Faults(seed=3, node_mtbf=60.0, node_repair=5.0, job_mtbf=90.0, lateness=0.5)
    latencies = Latencies(
        start=1.0, load=2.0, launch=0.1, report=0.2, pause=0.3, checkpoint=0.7, stop=0.4
    )
    given_work = workload(6, faults=faults, latencies=latencies)
    return [
        dump_entry(entry)
        for name in names or SETTINGS
        for entry in simulated(in_time(name, 1.0), given_work)
    ]


@pytest.mark.parametrize("name", ["alto", "gavel"])
def test_a_golden_log_of_several_kinds(name: str) -> None:
    golden = (GOLDEN / f"{name}-mixed.jsonl").read_text().splitlines()
    assert mixed_log(name) == golden
    controller = Controller(build(in_time(name, 1.0)), Cluster(MIXED))
    assert replay(load(golden).entries, controller) is None


def test_a_log_whose_tasks_tell_no_speeds_is_decided_as_ever() -> None:
    """What `gavel` decided before kinds were weighed: max-min over time on GPUs."""
    golden = (GOLDEN / "gavel-mixed-untold.jsonl").read_text().splitlines()
    controller = Controller(build(in_time("gavel", 1.0)), Cluster(MIXED))
    assert replay(load(golden).entries, controller) is None


def test_the_logs_do_not_depend_on_the_hash_seed() -> None:
    module = "tests.sim.schedules.test_mixed_clusters"
    script = f"from {module} import mixed_log\nprint(*mixed_log(), sep='\\n')"
    logs = printed_under_two_seeds(script)
    assert logs[0] == logs[1]
    assert logs[0].count(b"\n") == len(mixed_log())
