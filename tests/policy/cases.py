"""Small tasks, reports and a backend without a clock."""

import random
from collections.abc import Callable, Sequence
from enum import Enum

from alto_policy.controller import Controller, run
from alto_policy.decisions import (
    Decision,
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
    TaskCancelled,
)
from alto_policy.ledger.cluster import Cluster
from alto_policy.memory import MemoryModel
from alto_policy.policies import Settings, build
from alto_policy.runlog import Entry
from alto_policy.types import Gpu, GpuId, Hyperparameters, Job, JobId, Task, TaskId
from alto_policy.view import Policy

__all__ = [
    "UP",
    "Ledger",
    "ToyBackend",
    "gpus",
    "job",
    "job_decisions",
    "left",
    "memory",
    "play",
    "report",
    "task",
]

Curve = Callable[[Job, int], float]  # loss after a step, in training and in validation


def gpus(count: int = 1) -> tuple[Gpu, ...]:
    return tuple(Gpu(id=GpuId(i), kind="toy") for i in range(count))


def job(
    name: str, *, batch_size: int = 1, rank: int = 1, steps: int = 20, reports: int = 20
) -> Job:
    chosen = Hyperparameters(batch_size=batch_size)
    return Job(id=JobId(name), hyperparameters=chosen, steps=steps, reports=reports)


def task(name: str, jobs: Sequence[Job], num_gpus: int = 1) -> Task:
    return Task(id=TaskId(name), jobs=tuple(jobs), backbone="toy", max_length=1, num_gpus=num_gpus)


def memory(capacity: int) -> MemoryModel:
    """A job takes as many bytes as its batch size."""
    return MemoryModel(capacity=capacity, fixed=0, per_rank=0, per_token=1)


def report(name: str, step: int, val: float, train: float | None = None) -> LossReported:
    return LossReported(float(step), JobId(name), step, val if train is None else train, val)


def play(policy: Policy, backend: "ToyBackend", num_gpus: int = 1) -> list[Entry]:
    entries: list[Entry] = []
    run(Controller(policy, Cluster(gpus(num_gpus)), entries.append), backend)
    return entries


def job_decisions(entries: Sequence[Entry]) -> dict[str, list[tuple[int, str]]]:
    """What was decided on each job's reports, and how it was stopped when it was paused."""
    decided: dict[str, list[tuple[int, str]]] = {}
    last_step: dict[str, int] = {}
    for entry in entries:
        if isinstance(entry.event, LossReported):
            last_step[entry.event.job] = max(entry.event.step, last_step.get(entry.event.job, 0))
        for decision in entry.decisions:
            if isinstance(decision, Pause | Stop):
                what = "pause" if isinstance(decision, Pause) else decision.reason.value
                step = last_step.get(decision.job, 0)
                decided.setdefault(decision.job, []).append((step, what))
    return decided


UP = ExecutorUp(1.0, TaskId("t"), memory(99))


def left(name: str, how: Departure) -> JobLeft:
    return JobLeft(9.0, JobId(name), how)


class Ledger:
    """A policy, and a cluster to which events are told by hand; task t has arrived."""

    def __init__(self, settings: Settings, jobs: Sequence[Job], num_gpus: int = 1) -> None:
        self._controller = Controller(build(settings), Cluster(gpus(num_gpus)))
        self.tell(TaskArrived(0.0, task("t", jobs, num_gpus)))

    def tell(self, *events: Event) -> tuple[Decision, ...]:
        """Decisions on the last of the events."""
        return [self._controller.handle(event) for event in events][-1]


class Place(Enum):
    AWAY = "away"
    TRAINING = "training"
    REPORTING = "reporting"


class ToyBackend:
    """Whatever can happen next is drawn by `dice`; up to `crashes` executors go down unasked.

    Those of `unwanted` are cancelled at some moment after they have arrived, or have ended.
    """

    def __init__(
        self,
        tasks: Sequence[Task],
        curve: Curve,
        capacity: int,
        dice: random.Random | None = None,
        crashes: int = 0,
        unwanted: Sequence[TaskId] = (),
    ) -> None:
        self._dice = dice or random.Random(0)
        self._curve = curve
        self._capacity = capacity
        self._crashes = crashes
        self._unwanted = list(unwanted)
        self._now = 0.0
        self._coming: list[Event] = [TaskArrived(0.0, task) for task in tasks]
        self._jobs = {job.id: job for task in tasks for job in task.jobs}
        self._task_of = {job.id: task.id for task in tasks for job in task.jobs}
        self._up: list[TaskId] = []
        self._place = dict.fromkeys(self._jobs, Place.AWAY)
        self._step = dict.fromkeys(self._jobs, 0)
        self._leaving: dict[JobId, Departure] = {}
        self.most_residents = 0

    def next_event(self) -> Event | None:
        for name, place in self._place.items():
            if place is Place.REPORTING:
                self._place[name] = Place.TRAINING
                if self._step[name] == self._jobs[name].steps:
                    self._leaving.setdefault(name, Departure.FINISHED)
        choices: list[Callable[[], Event]] = [lambda: self._coming.pop(0)] * bool(self._coming)
        for name, place in self._place.items():
            if place is Place.TRAINING:
                act = self._leave if name in self._leaving else self._advance
                choices.append(lambda act=act, name=name: act(name))  # type: ignore[misc]
        if self._crashes:
            choices += [lambda up=up: self._crash(up) for up in self._up]  # type: ignore[misc]
        arriving = {e.task.id for e in self._coming if isinstance(e, TaskArrived)}
        for unwanted in self._unwanted:
            if unwanted not in arriving:
                choices.append(lambda name=unwanted: self._cancel(name))  # type: ignore[misc]
        self._now += 1
        return self._dice.choice(choices)() if choices else None

    def execute(self, decision: Decision) -> None:
        match decision:
            case StartExecutor(task=name):
                self._coming.append(ExecutorUp(self._now, name, memory(self._capacity)))
                self._up.append(name)
            case StopExecutor(task=name):
                self._coming.append(ExecutorDown(self._now, name))
                self._up.remove(name)
            case Launch(jobs=jobs):
                self._place.update(dict.fromkeys(jobs, Place.TRAINING))
                here = [place for place in self._place.values() if place is not Place.AWAY]
                self.most_residents = max(self.most_residents, len(here))
            case Pause(job=name) | Stop(job=name):
                if self._place[name] is not Place.AWAY:
                    how = Departure.PAUSED if isinstance(decision, Pause) else Departure.STOPPED
                    self._leaving[name] = how

    def _advance(self, name: JobId) -> Event:
        spec = self._jobs[name]
        self._step[name] = step = spec.next_report_step(self._step[name])
        self._place[name] = Place.REPORTING
        loss = self._curve(spec, step)
        return LossReported(self._now, name, step, loss, loss)

    def _leave(self, name: JobId) -> Event:
        self._place[name] = Place.AWAY
        return JobLeft(self._now, name, self._leaving.pop(name))

    def _cancel(self, name: TaskId) -> Event:
        self._unwanted.remove(name)
        return TaskCancelled(self._now, name)

    def _crash(self, name: TaskId) -> Event:
        """Some jobs fall back to an older checkpoint, and will report a second time."""
        self._crashes -= 1
        self._up.remove(name)
        self._coming = [e for e in self._coming if not isinstance(e, ExecutorUp) or e.task != name]
        for job_id, spec in self._jobs.items():
            if self._task_of[job_id] == name and self._place[job_id] is not Place.AWAY:
                self._place[job_id] = Place.AWAY
                self._leaving.pop(job_id, None)
                number = self._step[job_id] * spec.reports // spec.steps
                self._step[job_id] = spec.report_step(self._dice.randint(0, number))
        return ExecutorDown(self._now, name)
