"""Whatever arrives, fails or comes late: nothing is over-committed, lost or doubled."""

import math
import random
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alto_policy.controller import Controller, replay
from alto_policy.decisions import WakeAt
from alto_policy.estimates import DurationEstimate, declared_seconds
from alto_policy.events import TaskArrived
from alto_policy.ledger.cluster import Cluster
from alto_policy.memory import MemoryModel
from alto_policy.policies import SETTINGS, Settings, build
from alto_policy.policies.elastic import ElasticSettings
from alto_policy.policies.exclusive import ExclusiveSettings
from alto_policy.policies.ftf import FtfSettings
from alto_policy.policies.gavel import GavelSettings
from alto_policy.policies.las import LasSettings
from alto_policy.policies.sjf import SjfSettings
from alto_policy.policies.srtf import SrtfSettings
from alto_policy.runlog import Entry, dump_entry, load
from alto_policy.types import JobId, Task
from alto_sim.machines.failures import Faults
from alto_sim.machines.hardware import gpus_of
from alto_sim.machines.latencies import Latencies
from alto_sim.simulate import play
from alto_sim.times.step_time import StepTime
from alto_sim.workloads.workload import Workload
from tests.hash_seed import printed_under_two_seeds
from tests.sim.cases import NOW, Flat, job, task
from tests.sim.schedules.audit import Audit

PREEMPTIVE = ("srtf", "las", "ftf", "gavel")
RIGID = ("r0", "r1", "r2", "r3", "r4")
NUM_GPUS = 6
GOLDEN = Path("tests/golden/simulated")


def workload(seed: int, *, faults: Faults | None = None, latencies: Latencies = NOW) -> Workload:
    """Rigid jobs and tuning tasks, some of them wider than a node, one wider than the cluster."""
    dice = random.Random(seed)
    tasks: list[Task] = []
    durations: dict[JobId, float] = {}
    for name in RIGID:
        seconds = dice.randint(1, 60)
        tasks.append(task(name, [job(name, seconds, 1)], dice.choice([1, 1, 2, 3, 5])))
        durations[JobId(name)] = float(seconds)
    for name in ("s", "t", "u"):
        jobs = [
            job(f"{name}{i}", dice.randint(4, 12), dice.randint(1, 4), batch_size=1 + i % 3)
            for i in range(dice.randint(1, 5))
        ]
        tasks.append(task(name, jobs, dice.choice([1, 2])))
    tasks.append(task("wide", [job("wide0", 5, 1)], NUM_GPUS + 1))
    dice.shuffle(tasks)
    return Workload(
        arrivals=tuple(TaskArrived(float(dice.randint(0, 40)), each) for each in tasks),
        curves=Flat(),
        step_time=StepTime(per_pass=1.0, per_token=0.1, per_evaluation=0.5),
        latencies=latencies,
        memory=MemoryModel(capacity=5, fixed=0, per_rank=0, per_token=1),
        durations=durations,
        faults=faults or Faults(),
    )


def simulated(
    chosen: Settings, workload: Workload, estimate: DurationEstimate = declared_seconds
) -> list[Entry]:
    entries: list[Entry] = []
    gpus = gpus_of(NUM_GPUS, gpus_per_node=3)
    play(workload, chosen, gpus, entries.append, estimate=estimate)
    policy = build(chosen, estimate=estimate)
    assert replay(entries, Controller(policy, Cluster(gpus))) is None
    return entries


LATENCIES = st.builds(
    Latencies, **{name: st.sampled_from([0.0, 0.3, 4.0]) for name in Latencies.__slots__}
)
FAULTS = st.builds(
    Faults,
    seed=st.integers(0, 99),
    node_mtbf=st.sampled_from([math.inf, 25.0, 100.0]),
    node_repair=st.sampled_from([1.0, 20.0]),
    job_mtbf=st.sampled_from([math.inf, 50.0]),
    checkpoint_every=st.sampled_from([math.inf, 7.0]),
    straggler_share=st.sampled_from([0.0, 0.5]),
    lateness=st.sampled_from([0.0, 1.0]),
)


@pytest.mark.parametrize("name", SETTINGS)
@settings(max_examples=25)
@given(seed=st.integers(0, 2**32), latencies=LATENCIES, faults=FAULTS)
def test_nothing_is_over_committed_lost_or_doubled(
    name: str, seed: int, latencies: Latencies, faults: Faults
) -> None:
    audit = Audit(NUM_GPUS)
    entries = simulated(in_time(name, 1.0), workload(seed, faults=faults, latencies=latencies))
    audit.follow(entries, conserves_work=name not in (*PREEMPTIVE, "exclusive"))
    audit.check_end()
    assert "wide0" in audit.stopped


@pytest.mark.parametrize("name", SETTINGS)
@settings(max_examples=10)
@given(seed=st.integers(0, 2**32))
def test_without_faults_a_rigid_job_is_served_for_its_duration(name: str, seed: int) -> None:
    given_work = workload(seed)
    chosen = in_time(name, 1.0) if name == "elastic" else SETTINGS[name]()
    audit = Audit(NUM_GPUS)
    audit.follow(simulated(chosen, given_work), conserves_work=False)
    assert {job: audit.served[job] for job in RIGID} == pytest.approx(given_work.durations)
    assert all(audit.ended[job] == "finished" for job in RIGID)


@pytest.mark.parametrize(
    "chosen",
    [
        SjfSettings(same_node=True),
        ExclusiveSettings(same_node=True),
        SrtfSettings(same_node=True),
        LasSettings(same_node=True),
        FtfSettings(same_node=True),
        GavelSettings(same_node=True),
    ],
    ids=lambda chosen: type(chosen).__name__,
)
@pytest.mark.parametrize("seed", range(3))
def test_a_gang_stays_on_one_node_if_asked_to(chosen: Settings, seed: int) -> None:
    entries = simulated(chosen, workload(seed))
    audit = Audit(NUM_GPUS)
    audit.follow(entries, conserves_work=False)
    audit.check_end()
    gangs = [d.gpus for entry in entries for d in entry.decisions if hasattr(d, "gpus")]
    assert gangs
    assert all(len({gpu // 3 for gpu in gang}) == 1 for gang in gangs)


def in_time(name: str, factor: float) -> Settings:
    """Rounds and thresholds are times as well."""
    rounds = 20.0 * factor
    match name:
        case "las":
            return LasSettings(thresholds=(30.0 * factor,), round_seconds=rounds)
        case "ftf":
            return FtfSettings(round_seconds=rounds)
        case "gavel":
            return GavelSettings(round_seconds=rounds)
        case "elastic":
            return ElasticSettings(round_seconds=rounds, same_node=False)
        case _:
            return SETTINGS[name]()


@pytest.mark.parametrize("name", SETTINGS)
@pytest.mark.parametrize("factor", [0.25, 8.0])
def test_scaling_all_times_scales_the_schedule(name: str, factor: float) -> None:
    """By powers of two, so that floats scale without a rounding."""
    given_work = replace(workload(7), latencies=replace(NOW, load=3.0, stop=1.0))
    scaled = replace(
        given_work,
        arrivals=tuple(TaskArrived(a.t * factor, a.task) for a in given_work.arrivals),
        durations={job: seconds * factor for job, seconds in given_work.durations.items()},
        step_time=StepTime(
            per_pass=1.0 * factor, per_token=0.1 * factor, per_evaluation=0.5 * factor
        ),
        latencies=replace(NOW, load=3.0 * factor, stop=1.0 * factor),
    )
    one = simulated(in_time(name, 1.0), given_work)
    other = simulated(in_time(name, factor), scaled, lambda task: declared_seconds(task) * factor)
    assert [e.event.t * factor for e in one] == [e.event.t for e in other]
    assert [type(e.event) for e in one] == [type(e.event) for e in other]
    decisions = [[d for d in e.decisions if not isinstance(d, WakeAt)] for e in one]
    assert decisions == [[d for d in e.decisions if not isinstance(d, WakeAt)] for e in other]


def faulty_log(*names: str) -> list[str]:
    """What happens under these policies, or all, on a late and unreliable cluster."""
    faults = Faults(seed=3, node_mtbf=40.0, node_repair=5.0, job_mtbf=90.0, lateness=0.5)
    latencies = Latencies(
        start=1.0, load=2.0, launch=0.1, report=0.2, pause=0.3, checkpoint=0.7, stop=0.4
    )
    given_work = workload(5, faults=faults, latencies=latencies)
    return [
        dump_entry(entry)
        for name in names or SETTINGS
        for entry in simulated(in_time(name, 1.0), given_work)
    ]


@pytest.mark.parametrize("name", ["alto", "sjf", "srtf", "gavel"])
def test_a_golden_log_is_simulated_and_replayed_byte_for_byte(name: str) -> None:
    """The same in every version of Python: the logs were written once, by 3.11."""
    golden = (GOLDEN / f"{name}.jsonl").read_text().splitlines()
    assert faulty_log(name) == golden
    gpus = gpus_of(NUM_GPUS, gpus_per_node=3)
    controller = Controller(build(in_time(name, 1.0)), Cluster(gpus))
    assert replay(load(golden).entries, controller) is None


def test_the_logs_do_not_depend_on_the_hash_seed() -> None:
    module = "tests.sim.schedules.test_conservation"
    script = f"from {module} import faulty_log\nprint(*faulty_log(), sep='\\n')"
    logs = printed_under_two_seeds(script)
    assert logs[0] == logs[1]
    assert logs[0].count(b"\n") == len(faulty_log())
