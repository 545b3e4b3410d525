"""A cluster of SimPy callbacks that answers to the same protocol as the real executors."""

import math
from collections import deque
from functools import partial
from typing import assert_never

from alto_policy.decisions import (
    Decision,
    Launch,
    Pause,
    Resize,
    StartExecutor,
    Stop,
    StopExecutor,
    WakeAt,
)
from alto_policy.events import (
    Departure,
    Event,
    JobLeft,
    LossReported,
    TaskArrived,
    TaskCancelled,
    TaskResized,
    TimerFired,
)
from alto_policy.types import Gpu, JobId, Task, TaskId
from alto_sim.cluster.clock import Clock
from alto_sim.cluster.executors import Executors
from alto_sim.cluster.trainee import Trainee
from alto_sim.workloads.workload import Workload

__all__ = ["SimBackend"]

_ENDS = (Departure.FINISHED, Departure.FAILED, Departure.STOPPED)


class SimBackend:
    """Owns the simulated clock. A job that has reported waits until its decisions are back.

    They are back when the next event is asked for.
    """

    def __init__(self, workload: Workload, gpus: tuple[Gpu, ...]) -> None:
        self._clock = Clock()
        self._outbox: deque[Event] = deque()
        self._executors = Executors(workload, gpus, self._clock, self._outbox.append)
        self._told: Trainee | None = None  # the decisions on its report are being made
        self._tasks: dict[TaskId, Task] = {}
        self._trainees: dict[JobId, Trainee] = {}
        self._open: set[JobId] = set()  # have arrived, and nobody has told that they ended
        self._to_come = sorted(workload.arrivals, key=lambda arrival: arrival.t)[::-1]
        for cancellation in workload.cancellations:
            self._clock.at(cancellation.t, partial(self._cancel, cancellation))
        self._executors.break_nodes(lambda: bool(self._to_come or self._open))

    def next_event(self) -> Event | None:
        if self._told is not None:
            self._executors.release(self._told)
            self._told = None
        outbox, clock, to_come = self._outbox, self._clock, self._to_come
        while not outbox:
            # Arrivals come before whatever else happens at their moment.
            if not clock.go_on(to_come[-1].t if to_come else math.inf):
                return self._arrive(to_come.pop()) if to_come else None
        event = outbox.popleft()
        if isinstance(event, LossReported):
            self._told = self._trainees[event.job]
        elif isinstance(event, JobLeft) and event.how in _ENDS:
            self._open.discard(event.job)
            del self._trainees[event.job]  # so that a long trace is looked up in a small table
        return event

    def execute(self, decision: Decision) -> None:
        if isinstance(decision, Launch):
            for job in decision.jobs:
                self._executors.launch(self._trainees[job], decision.task, decision.gpu)
        elif isinstance(decision, StartExecutor):
            task, gpus = self._tasks[decision.task], decision.gpus
            self._executors.start(task, gpus)
        elif isinstance(decision, StopExecutor):
            self._executors.stop(decision.task)
        elif isinstance(decision, Pause):
            self._executors.order(self._trainees[decision.job], Departure.PAUSED)
        elif isinstance(decision, Stop):
            self._open.discard(decision.job)
            self._executors.order(self._trainees[decision.job], Departure.STOPPED)
        elif isinstance(decision, WakeAt):
            self._clock.at(decision.t, self._wake)
        elif isinstance(decision, Resize):
            # By the clock, so that all who arrive at this moment are there first.
            resized = TaskResized(self._clock.now, decision.task, decision.num_gpus)
            self._clock.at(self._clock.now, partial(self._outbox.append, resized))
        else:
            assert_never(decision)

    def _arrive(self, arrival: TaskArrived) -> TaskArrived:
        self._clock.advance(arrival.t)
        task = arrival.task
        self._tasks[task.id] = task
        for job in task.jobs:
            self._trainees[job.id] = Trainee(job)
            self._open.add(job.id)
        return arrival

    def _cancel(self, cancellation: TaskCancelled) -> None:
        """Whoever cancels a task that has ended tells nothing."""
        task = self._tasks.get(cancellation.task)
        if task is not None and any(job.id in self._open for job in task.jobs):
            self._outbox.append(cancellation)

    def _wake(self) -> None:
        self._outbox.append(TimerFired(self._clock.now))
