"""One policy, two clocks: the simulated one and the wall's."""

import math
import queue
import random
import threading
import time
from collections.abc import Callable
from dataclasses import replace

import pytest

from alto_policy.controller import Controller, replay, run
from alto_policy.decisions import (
    Decision,
    ExitReason,
    Launch,
    Pause,
    StartExecutor,
    Stop,
    StopExecutor,
)
from alto_policy.events import (
    Departure,
    Event,
    ExecutorDown,
    ExecutorUp,
    JobLeft,
    LossReported,
    TaskArrived,
)
from alto_policy.ledger.cluster import Cluster, Status
from alto_policy.policies import SETTINGS, Settings, build
from alto_policy.policies.alto import AltoSettings
from alto_policy.runlog import Entry, Header, RunLog, dump_entry, load
from alto_policy.types import Job, JobId
from alto_sim.cluster.backend import SimBackend
from alto_sim.curves.losses import Losses
from alto_sim.machines.latencies import Latencies
from alto_sim.simulate import play
from alto_sim.times.step_time import StepTime
from alto_sim.workloads.from_logs import recorded, synthetic
from alto_sim.workloads.workload import Workload
from tests.sim.cases import MEMORY, NOW, gpus, job, task

TASKS = [
    task("t", [job(f"t{i}", 40, 10, batch_size=1 + i % 3) for i in range(8)]),
    task("u", [job(f"u{i}", 40, 10) for i in range(4)]),
    task("wide", [job(f"w{i}", 40, 10, accumulation=1 + i % 2) for i in range(6)], num_gpus=2),
]
ARRIVALS = tuple(TaskArrived(0.001 * i, task) for i, task in enumerate(TASKS))
ALTO = AltoSettings(warmup=0.25, keep=0.5)


class Curves:
    """Jobs of odd number do worse; the sixth breaks down, the fourth diverges."""

    def losses(self, job: Job, step: int) -> Losses:
        number = int(job.id[1])
        if number == 5 and step >= 8:
            return Losses(math.nan, math.nan)
        if number == 3:
            return Losses(2 + 0.1 * step, 2 + 0.1 * step)
        loss = (3 if number % 2 else 2) - step / 100 + number / 1000
        return Losses(loss, loss)

    def report_step(self, job: Job, step: int) -> int:
        return job.next_report_step(step)


def lateness(seed: int) -> Latencies:
    dice = random.Random(seed)
    launch, report, pause, stop, checkpoint = (dice.choice([0.0, 0.4, 3.0]) for _ in range(5))
    return Latencies(
        start=dice.random(),
        load=0.0,
        launch=launch,
        report=report,
        pause=pause,
        checkpoint=checkpoint,
        stop=stop,
    )


def workload(seed: int = 0) -> Workload:
    return Workload(
        arrivals=ARRIVALS,
        curves=Curves(),
        step_time=StepTime(per_pass=0.5, per_token=0.1, per_evaluation=0.3),
        latencies=lateness(seed),
        memory=MEMORY,
    )


def simulated(settings: Settings, seed: int = 0, num_gpus: int = 2) -> list[Entry]:
    entries: list[Entry] = []
    play(workload(seed), settings, gpus(num_gpus), entries.append)
    return entries


class WallClockBackend:
    """Stands in for the real executors: a thread for each job, and a queue of events."""

    def __init__(self) -> None:
        self._events: queue.Queue[Event] = queue.Queue()
        self._jobs = {job.id: job for task in TASKS for job in task.jobs}
        self._steps = dict.fromkeys(self._jobs, 0)
        self._resident: set[JobId] = set()
        self._leaving: dict[JobId, Departure] = {}
        self._answered = {name: threading.Event() for name in self._jobs}
        self._told: LossReported | None = None
        self._num_open = len(TASKS)
        self._zero = time.monotonic()
        for arrival in ARRIVALS:
            self._events.put(arrival)

    def next_event(self) -> Event | None:
        if self._told is not None:
            self._answered[self._told.job].set()
            self._told = None
        if self._num_open == 0:
            return None
        event = self._events.get(timeout=20)
        self._told = event if isinstance(event, LossReported) else None
        self._num_open -= isinstance(event, ExecutorDown)
        return event

    def execute(self, decision: Decision) -> None:
        match decision:
            case StartExecutor(task=name):
                self._events.put(ExecutorUp(self._now(), name, MEMORY))
            case StopExecutor(task=name):
                self._events.put(ExecutorDown(self._now(), name))
            case Launch(jobs=jobs):
                for name in jobs:
                    self._resident.add(name)
                    threading.Thread(target=self._train, args=[self._jobs[name]]).start()
            case Pause(job=name) | Stop(job=name):
                if name in self._resident:
                    how = Departure.PAUSED if isinstance(decision, Pause) else Departure.STOPPED
                    self._leaving[name] = how

    def _train(self, job: Job) -> None:
        while (how := self._leaving.pop(job.id, None)) is None:
            if self._steps[job.id] == job.steps:
                how = Departure.FINISHED
                break
            time.sleep(random.random() / 500)
            self._steps[job.id] = step = job.next_report_step(self._steps[job.id])
            losses = Curves().losses(job, step)
            self._answered[job.id].clear()
            self._events.put(LossReported(self._now(), job.id, step, losses.train, losses.val))
            self._answered[job.id].wait()
        self._resident.discard(job.id)
        self._events.put(JobLeft(self._now(), job.id, how))

    def _now(self) -> float:
        return time.monotonic() - self._zero


def stops(entries: list[Entry]) -> dict[JobId, ExitReason]:
    return {d.job: d.reason for e in entries for d in e.decisions if isinstance(d, Stop)}


def on_the_wall_clock(settings: Settings) -> list[Entry]:
    entries: list[Entry] = []
    run(Controller(build(settings), Cluster(gpus(2)), entries.append), WallClockBackend())
    return entries


FATES = {
    ExitReason.DIVERGED: ("t3", "u3", "w3"),
    ExitReason.NON_FINITE: ("t5", "w5"),
    ExitReason.UNDERPERFORMED: ("t1", "t6", "t7", "u1", "w1", "w4"),  # half of those that remain
}
EXPECTED = {name: reason for reason, names in FATES.items() for name in names}


@pytest.mark.parametrize("make", [simulated, on_the_wall_clock])
def test_the_same_jobs_are_stopped_on_both_clocks(
    make: Callable[[Settings], list[Entry]],
) -> None:
    entries = make(ALTO)
    assert stops(entries) == EXPECTED
    assert (
        replay(load(map(dump_entry, entries)).entries, Controller(build(ALTO), Cluster(gpus(2))))
        is None
    )


@pytest.mark.parametrize("seed", range(12))
def test_lateness_changes_no_fate(seed: int) -> None:
    assert stops(simulated(ALTO, seed)) == EXPECTED


@pytest.mark.parametrize("name", SETTINGS)
@pytest.mark.parametrize("seed", range(3))
def test_every_policy_ends_every_job_and_frees_every_gpu(name: str, seed: int) -> None:
    cluster = Cluster(gpus(3))
    backend = SimBackend(workload(seed), gpus(3))
    entries: list[Entry] = []
    run(Controller(build(SETTINGS[name]()), cluster, entries.append), backend)
    assert all(cluster.status(job.id) is Status.ENDED for task in TASKS for job in task.jobs)
    assert cluster.free_gpus() == tuple(gpu.id for gpu in gpus(3))
    times = [entry.event.t for entry in entries]
    assert times == sorted(times)
    assert replay(entries, Controller(build(SETTINGS[name]()), Cluster(gpus(3)))) is None


@pytest.mark.parametrize("name", SETTINGS)
def test_a_simulation_is_byte_identical_run_to_run(name: str) -> None:
    first, second = (list(map(dump_entry, simulated(SETTINGS[name]()))) for _ in range(2))
    assert first == second


@pytest.mark.parametrize("seed", range(3))
def test_gpus_and_memory_are_never_over_committed(seed: int) -> None:
    """Counted from the log alone: the ledger does not watch itself."""
    owner: dict[int, str] = {}
    held: dict[str, tuple[int, int]] = {}
    sizes = {job.id: job.hyperparameters.batch_size for task in TASKS for job in task.jobs}
    for entry in simulated(SETTINGS["fifo"](), seed):
        if isinstance(entry.event, JobLeft):
            del held[entry.event.job]
        if isinstance(entry.event, ExecutorDown):
            owner = {gpu: task for gpu, task in owner.items() if task != entry.event.task}
        for decision in entry.decisions:
            if isinstance(decision, StartExecutor):
                assert not set(decision.gpus) & set(owner)
                owner |= dict.fromkeys(decision.gpus, decision.task)
            if isinstance(decision, Launch):
                assert owner[decision.gpu] == decision.task
                held |= {name: (decision.gpu, sizes[name]) for name in decision.jobs}
        for gpu in range(2):
            assert sum(size for at, size in held.values() if at == gpu) <= 99


def test_a_recorded_run_simulates_to_itself() -> None:
    entries: list[Entry] = []
    quick = Workload(
        arrivals=ARRIVALS,
        curves=Curves(),
        step_time=StepTime(per_pass=0.5, per_token=0.1, per_evaluation=0.3),
        latencies=replace(NOW, load=7.0),
        memory=MEMORY,
    )
    play(quick, ALTO, gpus(2), entries.append)
    again: list[Entry] = []
    workload = recorded(RunLog(Header(policy=ALTO, gpus=gpus(2)), tuple(entries)))
    play(workload, ALTO, gpus(2), again.append)
    assert stops(again) == stops(entries)
    assert again[-1].event.t == pytest.approx(entries[-1].event.t, rel=0.03)
    assert workload.latencies.load == pytest.approx(7.0)
    assert workload.measured == {task.id: MEMORY for task in TASKS}


def test_a_trace_is_simulated_with_made_up_losses() -> None:
    trace = load(dump_entry(Entry(arrival, ())) for arrival in ARRIVALS)
    entries: list[Entry] = []
    play(synthetic(trace, seed=3), ALTO, gpus(2), entries.append)
    assert len([e for e in entries if isinstance(e.event, ExecutorDown)]) == len(TASKS)
