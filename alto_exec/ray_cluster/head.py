"""Trains on a Ray cluster, behind the protocol that one device and the simulator answer to."""

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import assert_never

from alto_exec.events.inbox import Inbox
from alto_exec.events.outbox import Outbox
from alto_exec.events.past import Past
from alto_exec.ray_cluster.node.messages import Broken, Left, News, Ready, Reported, Secured
from alto_exec.ray_cluster.remote import RemoteExecutor
from alto_exec.ray_cluster.roster import Roster
from alto_exec.ray_cluster.watch import Turns
from alto_exec.site import TaskFiles, TrainingBackend
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
    ExecutorDown,
    ExecutorUp,
    JobLeft,
    LossReported,
    NodeDown,
    TaskCancelled,
    TaskResized,
)
from alto_policy.types import GpuId, Job, JobId, Task, TaskId
from alto_policy.view import ClusterView, ExecutorStatus, Status

__all__ = ["RayBackend"]

log = logging.getLogger(__name__)

_LONGEST_WAIT = 1.0  # seconds
_INBOX_SECONDS = 0.1  # between two looks into the inbox


class RayBackend(TrainingBackend):
    """Executors train by themselves; here their news become events, and decisions orders.

    A job that has reported trains on when the next event is asked for: by then the decisions on
    its report are out. `view` is the ledger of the run, brought to where its log ends.
    """

    def __init__(
        self, inbox: Inbox, files: TaskFiles, roster: Roster, past: Past, view: ClusterView
    ) -> None:
        self._outbox = Outbox(inbox, past)
        self._now = self._outbox.now
        self._files = files
        self._view = view
        self._roster = roster
        self._starts, self._stays = Counter(past.starts), Counter(past.stays)
        self._reported = dict(past.reported)
        self._losses = Counter[TaskId]()  # since the last report
        self._told: Event | None = None  # decisions on it are being made
        down = (past.lost_nodes | set(past.move.gone)) - past.move.replaced
        self._turns = Turns(down, lambda: self._roster.lost_nodes)
        self._reattach(past)

    @property
    def tokens_trained(self) -> int:
        return self._roster.tokens_trained

    def next_event(self) -> Event | None:
        self._settle()
        while not self._outbox:
            self._outbox.look()
            self._outbox.tell_all(self._turns.since_last(self._now()))
            if self._outbox:
                break
            self._roster.place()  # whoever looked into the inbox has no more use for a free device
            seconds = self._outbox.seconds_to_look(_INBOX_SECONDS)
            if seconds is None and not self._roster.is_busy:
                return None
            for task_id, news in self._roster.listen(_LONGEST_WAIT if seconds is None else seconds):
                self._hear(news, task_id)
        self._told = self._outbox.next()
        return self._told

    def prepare(self, decisions: Sequence[Decision]) -> None:
        """A job that is to stop does not come back when its executor is lost, so its best adapter
        must be on disk before the log tells of it. Raises UndecidedError if the executor is lost
        first: as the log has nothing of these decisions, they are made again from there."""
        asked = _about_to_stop(decisions, self._view)
        for task_id, news in self._roster.secure(asked) if asked else ():
            self._hear(news, task_id)

    def execute(self, decision: Decision) -> None:
        match decision:
            case StartExecutor(task=task_id, gpus=gpus):
                self._starts[task_id] += 1
                task = self._view.tasks()[task_id].on(len(gpus))
                if start := self._files.next_start(task):
                    start = replace(start, reported=_reported(task, self._reported, self._view))
                    self._roster.start(task_id, self._starts[task_id], start, gpus)
                else:
                    self._outbox.tell(TaskCancelled(self._now(), task_id))
            case StopExecutor(task=task_id):
                if self._roster.stop(task_id):
                    self._outbox.tell(ExecutorDown(self._now(), task_id))
            case Launch(task=task_id, gpu=gpu, jobs=jobs):
                self._launch(task_id, gpu, jobs)
            case Pause(job=job):
                _ask_to_leave(self._roster, self._view, job, Departure.PAUSED)
            case Stop(job=job):
                _ask_to_leave(self._roster, self._view, job, Departure.STOPPED)
                self._forget_if_ended(job)
            case Resize(task=task_id, num_gpus=num_gpus):
                self._outbox.tell(TaskResized(self._now(), task_id, num_gpus))
            case WakeAt(t=t):
                self._outbox.wake_at(t)
            case _:
                assert_never(decision)

    def _launch(self, task_id: TaskId, gpu: GpuId, jobs: Sequence[JobId]) -> None:
        self._stays.update(jobs)
        known = self._view.executor(task_id)
        assert known is not None, "the ledger has checked the decision"
        if executor := self._roster.get(task_id):  # or else its loss is still to be told
            for job in jobs:
                executor.join(self._view.spec(job), self._stays[job], known.gpus.index(gpu))

    def close(self) -> None:
        """End all executors. What was not reported is lost, as by a kill."""
        self._roster.close()

    def _reattach(self, past: Past) -> None:
        """Take over what an earlier head has left, and tell the policy what is gone.

        What had been said to an executor is said again: it knows what it has heard already.
        """
        self._outbox.tell_all(past.going(self._now()))
        for task_id in past.executors:
            known = self._view.executor(task_id)
            assert known is not None, "the log was folded into the ledger"
            is_wanted = known.status is not ExecutorStatus.STOPPING
            is_wanted = is_wanted and past.move.keeps(self._view, task_id, known.gpus)
            number = self._starts[task_id]
            executor = self._roster.attach(task_id, number, known.gpus) if is_wanted else None
            if executor is None:
                self._outbox.tell(ExecutorDown(self._now(), task_id))
                continue
            executor.is_ready = known.status is ExecutorStatus.UP
            for place, gpu in enumerate(known.gpus):
                for job in self._view.residents(gpu):
                    executor.join(self._view.spec(job), self._stays[job], place)
                    _repeat_orders(executor, job, self._view.status(job), self._reported.get(job))
        self._outbox.tell_all(past.move.coming(self._now()))
        self._roster.sweep()

    def _settle(self) -> None:
        """The decisions on the last event are out."""
        match self._told:
            case LossReported(job=job, step=step):
                if executor := self._roster.get(self._view.task_of(job).id):
                    executor.release(job, step)
            case JobLeft(job=job):
                self._forget_if_ended(job)
            case ExecutorDown(task=task_id):
                for job in tuple(self._view.jobs(task_id, Status.ENDED)):
                    self._forget_if_ended(job)
            case NodeDown(node=node):
                for task_id in self._roster.withdraw(node):
                    self._outbox.tell(ExecutorDown(self._now(), task_id))
        self._told = None

    def _forget_if_ended(self, job: JobId) -> None:
        """Remove what was kept of a job that will not train again."""
        if self._view.status(job) is Status.ENDED:
            self._files.directory_of(self._view.task_of(job).id).drop_checkpoint(job)

    def _hear(self, news: News, task_id: TaskId) -> None:
        """Make news an event; what the log has already is none."""
        executor = self._roster.get(task_id)
        if executor is None:
            return  # it was lost in the same breath
        match news:
            case Ready(memory=memory):
                self._outbox.tell(ExecutorUp(self._now(), task_id, memory))
            case Reported(job=job, step=step) if step <= self._reported.get(job, 0):
                executor.release(job, step)
            case Reported(job=job, step=step, losses=losses):
                self._reported[job] = step
                self._losses[task_id] = 0
                self._outbox.tell(LossReported(self._now(), job, step, losses.train, losses.val))
            case Left(job=job, how=how):
                self._outbox.tell(JobLeft(self._now(), job, how))
            case Secured():
                pass  # of an earlier head
            case Broken(why=why, is_mistake=is_mistake):
                self._lose(task_id, why, is_mistake=is_mistake)
            case _:
                assert_never(news)

    def _lose(self, task_id: TaskId, why: str, *, is_mistake: bool) -> None:
        """Strike off an executor, and give its task up if another would fare no better."""
        was_asked_to = self._roster.remove(task_id)
        self._outbox.tell(ExecutorDown(self._now(), task_id))
        if was_asked_to:
            return
        self._losses[task_id] += 1
        if not is_mistake:
            log.warning("task %s: lost its executor: %s", task_id, why)
            if self._losses[task_id] < self._roster.max_losses:
                return
            why = (
                f"task {task_id}: lost {self._losses[task_id]} executors, one after another, "
                f"without a report; the last one: {why}"
            )
        self._files.fail(task_id, why)
        self._outbox.tell(TaskCancelled(self._now(), task_id))


def _ask_to_leave(roster: Roster, view: ClusterView, job: JobId, how: Departure) -> None:
    if executor := roster.get(view.task_of(job).id):
        executor.leave(job, how)


def _about_to_stop(
    decisions: Sequence[Decision], view: ClusterView
) -> dict[TaskId, tuple[Job, ...]]:
    """Jobs with an executor, by their tasks; the others have left, with all they had."""
    found: dict[TaskId, tuple[Job, ...]] = {}
    for decision in decisions:
        if isinstance(decision, Stop) and view.status(decision.job) is Status.STOPPING:
            task = view.task_of(decision.job).id
            found[task] = (*found.get(task, ()), view.spec(decision.job))
    return found


def _reported(
    task: Task, last: Mapping[JobId, int], view: ClusterView
) -> tuple[tuple[JobId, int], ...]:
    """Of the task's jobs that are not over, the last step that each has reported."""
    over = (Status.ENDED, Status.STOPPING)
    going_on = (job.id for job in task.jobs if view.status(job.id) not in over)
    return tuple((job, last[job]) for job in going_on if job in last)


def _repeat_orders(
    executor: RemoteExecutor, job: JobId, status: Status, reported: int | None
) -> None:
    if status in (Status.PAUSING, Status.STOPPING):
        is_pause = status is Status.PAUSING
        executor.leave(job, Departure.PAUSED if is_pause else Departure.STOPPED)
    if reported is not None:
        executor.release(job, reported)
