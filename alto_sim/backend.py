"""A cluster of SimPy callbacks that answers to the same protocol as the real executors."""

from collections import deque
from collections.abc import Callable, Iterable
from functools import partial
from typing import assert_never

import simpy
from simpy.core import EmptySchedule

from alto_policy.decisions import (
    Decision,
    Launch,
    Pause,
    StartExecutor,
    Stop,
    StopExecutor,
    WakeAt,
)
from alto_policy.events import (
    Departure,
    Event,
    ExecutorDown,
    ExecutorUp,
    JobLeft,
    LossReported,
    TaskArrived,
    TimerFired,
)
from alto_policy.memory import MemoryModel
from alto_policy.types import GpuId, JobId, Task, TaskId
from alto_runs.costs.durations import PassTimes
from alto_sim.curves import LossCurves, Losses
from alto_sim.lane import Clock, Lane, Outlet, Place, Trainee
from alto_sim.latencies import Latencies

__all__ = ["SimBackend"]


class SimBackend:
    """Owns the simulated clock. A job that has reported waits until its decisions are back.

    They are back when the next event is asked for.
    """

    def __init__(
        self,
        arrivals: Iterable[TaskArrived],
        *,
        curves: LossCurves,
        step_time: PassTimes,
        memory: Callable[[Task], MemoryModel],
        latencies: Latencies,
    ) -> None:
        self._environment = simpy.Environment()
        self._curves = curves
        self._step_time = step_time
        self._memory = memory
        self._latencies = latencies
        self._outbox: deque[Event] = deque()
        self._told: LossReported | None = None  # its decisions are being made
        self._tasks: dict[TaskId, Task] = {}
        self._trainees: dict[JobId, Trainee] = {}
        self._lanes: dict[tuple[TaskId, GpuId], Lane] = {}
        self._lane_of: dict[JobId, Lane] = {}
        for arrival in arrivals:
            self._after(arrival.t, partial(self._arrive, arrival.task))

    def next_event(self) -> Event | None:
        if self._told is not None:
            trainee = self._trainees[self._told.job]
            self._lane_of[trainee.spec.id].release(trainee)
            self._told = None
        while not self._outbox:
            try:
                self._environment.step()
            except EmptySchedule:
                return None
        event = self._outbox.popleft()
        self._told = event if isinstance(event, LossReported) else None
        return event

    def execute(self, decision: Decision) -> None:
        match decision:
            case StartExecutor(task=task):
                self._after(self._latencies.start, partial(self._come_up, self._tasks[task]))
            case StopExecutor(task=task):
                self._after(self._latencies.stop, partial(self._go_down, task))
            case Launch(task=task, gpu=gpu, jobs=jobs):
                for job in jobs:
                    self._launch(self._trainees[job], self._lane(task, gpu))
            case Pause(job=job):
                self._order(self._trainees[job], Departure.PAUSED, self._latencies.pause)
            case Stop(job=job):
                self._order(self._trainees[job], Departure.STOPPED, self._latencies.stop)
            case WakeAt(t=t):
                self._after(t - self._now(), self._wake)
            case _:
                assert_never(decision)

    def _arrive(self, task: Task) -> None:
        self._tasks[task.id] = task
        self._trainees.update((job.id, Trainee(job)) for job in task.jobs)
        self._outbox.append(TaskArrived(self._now(), task))

    def _come_up(self, task: Task) -> None:
        self._outbox.append(ExecutorUp(self._now(), task.id, self._memory(task)))

    def _go_down(self, task: TaskId) -> None:
        self._outbox.append(ExecutorDown(self._now(), task))

    def _wake(self) -> None:
        self._outbox.append(TimerFired(self._now()))

    def _launch(self, trainee: Trainee, lane: Lane) -> None:
        trainee.place, trainee.ordered, trainee.has_heard = Place.COMING, None, False
        trainee.stay += 1
        stay = trainee.stay
        self._lane_of[trainee.spec.id] = lane

        def join() -> None:
            if trainee.stay == stay and trainee.place is Place.COMING:
                lane.join(trainee)

        self._after(self._latencies.launch, join)

    def _order(self, trainee: Trainee, how: Departure, seconds: float) -> None:
        """Send the order; a job that holds no memory has nobody to hear it."""
        if trainee.place is Place.AWAY:
            return
        trainee.ordered = how
        self._after(seconds, partial(self._lane_of[trainee.spec.id].hear, trainee))

    def _lane(self, task: TaskId, gpu: GpuId) -> Lane:
        if (task, gpu) not in self._lanes:
            clock = Clock(self._now, self._after)
            outlet = Outlet(self._report, self._left)
            self._lanes[task, gpu] = Lane(
                self._tasks[task], self._curves, self._step_time, clock, outlet
            )
        return self._lanes[task, gpu]

    def _report(self, evaluation: float, trainee: Trainee, losses: Losses) -> None:
        job, step = trainee.spec.id, trainee.step

        def tell() -> None:
            self._outbox.append(LossReported(self._now(), job, step, losses.train, losses.val))

        self._after(evaluation + self._latencies.report, tell)

    def _left(self, trainee: Trainee, how: Departure) -> None:
        self._outbox.append(JobLeft(self._now(), trainee.spec.id, how))

    def _now(self) -> float:
        return float(self._environment.now)

    def _after(self, seconds: float, callback: Callable[[], None]) -> None:
        timeout = self._environment.timeout(max(0.0, seconds))
        timeout.callbacks.append(lambda _: callback())
