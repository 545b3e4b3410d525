"""An executor in a process of its own: it trains by itself, takes orders and tells news."""

import logging
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol, assert_never

import torch

from alto_exec.executor import Report
from alto_exec.ray_cluster.node.messages import (
    Broken,
    Call,
    Join,
    Leave,
    Left,
    News,
    Order,
    Orders,
    Pulse,
    Ready,
    Release,
    Reported,
    Secure,
    Secured,
)
from alto_policy.events import Departure
from alto_policy.memory import MemoryModel
from alto_policy.types import Job, JobId
from alto_runs.errors import UserError

__all__ = ["Crew", "Worker"]

log = logging.getLogger(__name__)

_TICK_SECONDS = 1.0


class Crew(Protocol):
    """An `Executor`, or several that are led as one."""

    @property
    def residents(self) -> Sequence[JobId]: ...
    @property
    def training(self) -> Sequence[JobId]: ...
    @property
    def tokens_trained(self) -> int: ...
    def expect(self, jobs: Sequence[Job]) -> None: ...
    def launch(self, job: Job, place: int = 0) -> Report | None: ...
    def reach(self, targets: Sequence[tuple[Job, int]]) -> None: ...
    def secure(self, jobs: Sequence[Job]) -> None: ...
    def resume(self, job: JobId, step: int) -> Departure | None: ...
    def leave(self, job: JobId, *, keep: bool) -> None: ...
    def advance(self) -> list[Report]: ...
    def evict(self) -> JobId: ...


class Worker:
    """One thread trains; those of the caller only pass messages.

    A worker that nobody has listened to for `hold_seconds` trains no more, since its place may have
    been given to another: not before it is listened to again. News may be without an answer for
    `answer_seconds` before training goes on.
    """

    def __init__(
        self,
        start: Callable[[], tuple[Crew, MemoryModel]],
        hold_seconds: float,
        answer_seconds: float,
    ) -> None:
        self._start = start
        self._hold_seconds = hold_seconds
        self._answer_seconds = answer_seconds
        self._changed = threading.Condition()  # guards all that both sides use
        self._orders: deque[Order] = deque()
        self._news: list[News] = []  # those that are not confirmed
        self._confirmed = 0
        self._answered = 0
        self._tokens_trained = 0
        self._heard_at = time.monotonic()
        self._pass_began: float | None = None  # none is under way
        self._answers_due = 0.0  # to the last news
        self._stays: dict[JobId, int] = {}
        threading.Thread(target=self._work, name="training", daemon=True).start()

    def order(self, orders: Orders) -> None:
        with self._changed:
            self._orders.extend(orders.orders)
            self._answered = max(self._answered, orders.answered)
            self._changed.notify_all()

    def listen(self, call: Call) -> Pulse:
        with self._changed:
            self._heard_at = time.monotonic()
            self._changed.notify_all()
            del self._news[: max(0, call.confirmed - self._confirmed)]
            self._confirmed = max(call.confirmed, self._confirmed)
            self._changed.wait_for(lambda: bool(self._news), call.seconds)
            self._heard_at = time.monotonic()
            began = self._heard_at if self._pass_began is None else self._pass_began
            seconds = self._heard_at - began
            return Pulse(self._confirmed, tuple(self._news), self._tokens_trained, seconds)

    def _work(self) -> None:
        try:
            executor, memory = self._start()
            self._tell([Ready(memory)])
            while True:
                self._carry_out_orders(executor)
                if self._may_train(executor):
                    self._advance(executor)
        except UserError as error:
            self._tell([Broken(str(error), is_mistake=True)])
        except Exception:
            log.exception("training ended in an error")
            self._tell([Broken(traceback.format_exc().rstrip().rpartition("\n")[2])])

    def _carry_out_orders(self, executor: Crew) -> None:
        """All that have come; if nobody trains or listens, waits for more."""
        with self._changed:
            self._pass_began = None
            while not self._orders and not self._may_train(executor):
                patience = self._answers_due - time.monotonic()
                self._changed.wait(patience if patience > 0 else _TICK_SECONDS)
            orders = tuple(self._orders)
            self._orders.clear()
            self._pass_began = time.monotonic()
        joins = [order for order in orders if isinstance(order, Join) and self._is_new(order)]
        if joins:
            executor.expect([join.job for join in joins])
        self._tell([news for order in orders for news in self._carry_out(order, executor)])

    def _carry_out(self, order: Order, executor: Crew) -> Iterator[News]:
        match order:
            case Join(job=job, stay=stay, place=place):
                if self._is_new(order):
                    self._stays[job.id] = stay
                    if report := executor.launch(job, place):
                        yield self._reported(report)
            case Release(job=job_id, step=step):
                if how := executor.resume(job_id, step):
                    executor.leave(job_id, keep=False)
                    yield Left(job_id, self._stays[job_id], how)
            case Leave(job=job_id, stay=stay, how=how):
                if stay == self._stays.get(job_id) and job_id in executor.residents:
                    executor.leave(job_id, keep=how is Departure.PAUSED)
                    yield Left(job_id, stay, how)
            case Secure(jobs=jobs):
                executor.secure([job for job in jobs if job.id in executor.residents])
                yield Secured(tuple(job.id for job in jobs))
            case _:
                assert_never(order)

    def _advance(self, executor: Crew) -> None:
        try:
            reports = executor.advance()
        except torch.OutOfMemoryError:
            job = executor.evict()
            self._tell([Left(job, self._stays[job], Departure.EVICTED)])
            return
        with self._changed:
            self._tokens_trained = executor.tokens_trained
        self._tell([self._reported(report) for report in reports])

    def _may_train(self, executor: Crew) -> bool:
        """Whether somebody trains and listens, and all answers are there. Jobs that come or report
        at the same time so go on together: one by one they would train alone, and never meet."""
        with self._changed:
            if not executor.training or self._silence() > self._hold_seconds:
                return False
            num_told = self._confirmed + len(self._news)
            is_answered = self._answered >= num_told and not self._orders
            is_answered = is_answered and len(executor.training) == len(executor.residents)
            return is_answered or time.monotonic() >= self._answers_due

    def _is_new(self, join: Join) -> bool:
        return join.stay > self._stays.get(join.job.id, 0)

    def _reported(self, report: Report) -> Reported:
        return Reported(report.job, self._stays[report.job], report.step, report.losses)

    def _tell(self, news: Sequence[News]) -> None:
        """All at once: they are answered together."""
        if not news:
            return
        with self._changed:
            self._news.extend(news)
            self._answers_due = time.monotonic() + self._answer_seconds
            self._changed.notify_all()

    def _silence(self) -> float:
        return time.monotonic() - self._heard_at
