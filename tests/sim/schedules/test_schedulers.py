"""Schedules of rigid jobs that can be worked out by hand: who holds GPUs, and from when to when."""

import pytest

from alto_policy.decisions import Launch
from alto_policy.estimates import DurationEstimate, declared_seconds
from alto_policy.events import (
    Departure,
    ExecutorDown,
    ExecutorUp,
    JobLeft,
    LossReported,
    TaskArrived,
)
from alto_policy.policies import Settings
from alto_policy.policies.exclusive import ExclusiveSettings
from alto_policy.policies.fifo import FifoSettings
from alto_policy.policies.ftf import FtfSettings
from alto_policy.policies.gavel import GavelSettings
from alto_policy.policies.las import LasSettings
from alto_policy.policies.sjf import SjfSettings
from alto_policy.policies.srtf import SrtfSettings
from alto_policy.runlog import Entry
from alto_policy.types import Gpu, GpuId, JobId
from alto_sim.machines.failures import Faults
from alto_sim.machines.hardware import Hardware, gpus_of
from alto_sim.machines.latencies import Latencies
from alto_sim.simulate import play
from alto_sim.workloads.rigid import AT_ONCE
from alto_sim.workloads.workload import Workload
from tests.sim.cases import MEMORY, SECOND, Flat, job, task

Row = tuple[str, float, int, int]  # name, arrival, duration, width
Stay = tuple[str, float, float]  # name, from, to


def workload(
    rows: list[Row], latencies: Latencies = AT_ONCE, faults: Faults | None = None
) -> Workload:
    return Workload(
        arrivals=tuple(
            TaskArrived(at, task(name, [job(name, seconds, 1)], width))
            for name, at, seconds, width in rows
        ),
        curves=Flat(),
        latencies=latencies,
        durations={JobId(name): float(seconds) for name, _, seconds, _ in rows},
        faults=faults or Faults(),
    )


def stays(
    settings: Settings,
    given: Workload,
    num_gpus: int,
    estimate: DurationEstimate = declared_seconds,
) -> list[Stay]:
    since: dict[str, float] = {}
    found: list[Stay] = []

    def record(entry: Entry) -> None:
        now = entry.event.t
        match entry.event:
            case JobLeft(job=name):
                found.append((name, since.pop(name), now))
            case ExecutorDown(task=name) if name in since:
                found.append((name, since.pop(name), now))
        for decision in entry.decisions:
            if isinstance(decision, Launch):
                since.update(dict.fromkeys(decision.jobs, now))

    play(given, settings, gpus_of(num_gpus), record, estimate=estimate)
    return sorted(found, key=lambda stay: (stay[1], stay[0]))


@pytest.mark.parametrize(
    ("settings", "rows", "num_gpus", "expected"),
    [
        pytest.param(
            FifoSettings(),
            [("a", 0, 10, 1), ("b", 1, 5, 2), ("c", 2, 8, 1)],
            2,
            [("a", 0, 10), ("c", 2, 10), ("b", 10, 15)],
            id="fifo: the narrow pass the wide",
        ),
        pytest.param(
            ExclusiveSettings(),
            [("a", 0, 10, 1), ("b", 1, 5, 2), ("c", 2, 8, 1)],
            2,
            [("a", 0, 10), ("b", 10, 15), ("c", 15, 23)],
            id="exclusive: nobody passes",
        ),
        pytest.param(
            SjfSettings(),
            [("a", 0, 10, 1), ("b", 1, 9, 1), ("c", 2, 3, 1), ("d", 3, 3, 1)],
            1,
            [("a", 0, 10), ("c", 10, 13), ("d", 13, 16), ("b", 16, 25)],
            id="sjf: the shortest, then the first",
        ),
        pytest.param(
            SrtfSettings(),
            [("a", 0, 10, 1), ("b", 2, 3, 1), ("c", 4, 2, 1)],
            1,
            [("a", 0, 2), ("b", 2, 5), ("c", 5, 7), ("a", 7, 15)],
            id="srtf: the short interrupt, the equal do not",
        ),
        pytest.param(
            SrtfSettings(),
            [("a", 0, 20, 1), ("b", 0, 30, 1), ("c", 5, 4, 2)],
            2,
            [("a", 0, 5), ("b", 0, 5), ("c", 5, 9), ("a", 9, 24), ("b", 9, 34)],
            id="srtf: a gang interrupts as many as it needs",
        ),
        pytest.param(
            SrtfSettings(),
            [("a", 0, 20, 1), ("b", 0, 30, 1), ("c", 5, 4, 1)],
            2,
            [("a", 0, 20), ("b", 0, 5), ("c", 5, 9), ("b", 9, 34)],
            id="srtf: the longest yields",
        ),
        pytest.param(
            LasSettings(thresholds=(10.0,), round_seconds=4.0),
            [("a", 0, 30, 1), ("b", 1, 5, 1)],
            1,
            [("a", 0, 12), ("b", 12, 17), ("a", 17, 35)],
            id="las: a falls a queue after 10 s, at a round's end",
        ),
        pytest.param(
            GavelSettings(round_seconds=10.0),
            [("a", 0, 25, 1), ("b", 0, 25, 1)],
            1,
            [
                ("a", 0, 10),
                ("b", 10, 20),
                ("a", 20, 30),
                ("b", 30, 40),
                ("a", 40, 45),
                ("b", 45, 50),
            ],
            id="gavel: equal shares by rounds",
        ),
        pytest.param(
            FtfSettings(round_seconds=10.0),
            [("a", 0, 100, 1), ("b", 0, 20, 1)],
            1,
            [("a", 0, 10), ("b", 10, 30), ("a", 30, 120)],
            id="ftf: the short lose more by waiting",
        ),
    ],
)
def test_schedule(settings: Settings, rows: list[Row], num_gpus: int, expected: list[Stay]) -> None:
    assert stays(settings, workload(rows), num_gpus) == expected


def test_the_policy_believes_its_estimate_and_not_the_truth() -> None:
    rows: list[Row] = [("a", 0, 1, 1), ("b", 0, 5, 1), ("c", 0, 9, 1)]
    longest_first = stays(SjfSettings(), workload(rows), 1, lambda task: -declared_seconds(task))
    assert longest_first == [("a", 0, 1), ("c", 1, 10), ("b", 10, 15)]


def test_preemption_pays_its_latencies() -> None:
    latencies = Latencies(start=1, load=2, launch=0, report=0, pause=0.5, checkpoint=4, stop=0.25)
    rows: list[Row] = [("a", 0, 10, 1), ("b", 5, 3, 1)]
    assert stays(SrtfSettings(), workload(rows, latencies), 1) == [
        ("a", 3, 9.5),  # told at 5, hears at 5.5, has written at 9.5
        ("b", 12.75, 15.75),
        ("a", 19, 26.5),  # 2.5 of its 10 s were done
    ]


def test_a_rigid_job_falls_back_to_its_checkpoint_when_a_node_fails() -> None:
    faults = Faults(seed=1, node_mtbf=40.0, node_repair=5.0, checkpoint_every=10.0)
    found = stays(FifoSettings(), workload([("a", 0, 100, 1)], faults=faults), 1)
    assert len(found) > 1
    kept = sum((end - start) // 10 * 10 for _, start, end in found[:-1])
    assert found[-1][2] - found[-1][1] == pytest.approx(100 - kept)
    lost = Faults(seed=1, node_mtbf=40.0, node_repair=5.0)
    last = stays(FifoSettings(), workload([("a", 0, 50, 1)], faults=lost), 1)[-1]
    assert last[2] - last[1] == pytest.approx(50)


@pytest.mark.parametrize("seed", range(4))
def test_a_tuned_job_falls_back_to_its_last_report_when_a_node_fails(seed: int) -> None:
    """b reports at its end alone; what it trained in the passes of a's reports is lost."""
    ups: list[float] = []
    ends: list[float] = []

    def record(entry: Entry) -> None:
        if isinstance(entry.event, ExecutorUp):
            ups.append(entry.event.t)
        if isinstance(entry.event, LossReported) and entry.event.job == "b":
            ends.append(entry.event.t)

    jobs = [job("a", 40, 40), job("b", 9, 1)]
    given = Workload(
        arrivals=(TaskArrived(0.0, task("t", jobs)),),
        curves=Flat(),
        step_time=SECOND,
        latencies=AT_ONCE,
        memory=MEMORY,
        faults=Faults(seed=seed, node_mtbf=3.0, node_repair=1.0),
    )
    play(given, FifoSettings(), gpus_of(1), record)
    assert ups[1] < ends[0]  # it was interrupted
    assert ends[0] - max(up for up in ups if up < ends[0]) == pytest.approx(9.0)


def test_stragglers_and_slow_gpus_take_their_time() -> None:
    faults = Faults(straggler_share=1.0, straggler_slowdown=2.0)
    assert stays(FifoSettings(), workload([("a", 0, 10, 1)], faults=faults), 1) == [("a", 0, 20)]
    slow = workload([("a", 0, 10, 2)])
    slow = Workload(
        arrivals=slow.arrivals,
        curves=slow.curves,
        latencies=AT_ONCE,
        durations=slow.durations,
        speeds={"H100": 0.5},
    )
    assert stays(FifoSettings(), slow, 2) == [("a", 0, 20)]


def test_a_gang_of_several_kinds_is_as_slow_as_its_slowest() -> None:
    kinds = ("H100", "A100", "H100")
    hardware = Hardware(
        [Gpu(id=GpuId(i), kind=kind) for i, kind in enumerate(kinds)], {"A100": 0.5}
    )
    assert hardware.slowdown((GpuId(0), GpuId(2))) == 1.0
    assert hardware.slowdown((GpuId(0), GpuId(1))) == 2.0


def test_a_job_that_fails_is_gone() -> None:
    left: list[JobLeft] = []

    def record(entry: Entry) -> None:
        if isinstance(entry.event, JobLeft):
            left.append(entry.event)

    faults = Faults(job_mtbf=5.0)
    rows: list[Row] = [(f"j{i}", 0, 10, 1) for i in range(40)]
    play(workload(rows, faults=faults), FifoSettings(), gpus_of(4), record)
    assert len(left) == 40
    failed = sum(event.how is Departure.FAILED for event in left)
    assert failed == pytest.approx(40 * (1 - 2.718 ** (-10 / 5)), abs=6)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("node_mtbf", 0.0),
        ("job_mtbf", -1.0),
        ("straggler_share", 1.5),
        ("straggler_slowdown", 0.5),
        ("lateness", -0.1),
    ],
)
def test_faults_are_what_they_say(field: str, value: float) -> None:
    with pytest.raises(ValueError, match=rf"{field} must be .*, got {value}"):
        Faults(**{field: value})  # type: ignore[arg-type]  # a table of fields
