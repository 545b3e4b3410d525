"""The head's end of one executor."""

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, assert_never

from alto_exec.ray_cluster.node.messages import (
    CALL,
    ORDERS,
    PULSE,
    Broken,
    Call,
    Join,
    Leave,
    Left,
    News,
    Order,
    Orders,
    Ready,
    Release,
    Reported,
    Secure,
    Secured,
)
from alto_exec.ray_cluster.quarters import Quarters
from alto_policy.events import Departure
from alto_policy.types import Job, JobId

__all__ = ["LostError", "Patience", "RemoteExecutor"]

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """How long to wait for what, in seconds."""

    pulse: float = 1.0  # between two signs of life
    answer: float = 3.0  # to an executor's news, before it trains on with those that need none
    hold: float = 5.0  # an executor that nobody listens to trains no more
    unreachable: float = 8.0  # one whose process cannot be spoken to is lost, and so is
    silence: float = 15.0  # one that gives no sign of life; both are more than `hold` and a pulse
    start: float = 300.0  # until a process first speaks
    slow_pass: float = 60.0  # a pass that takes longer is told
    stalled_pass: float = 900.0  # one that takes longer is lost, with its executor
    orphan: float = 600.0  # an executor whose head does not come back gives up its GPUs
    max_losses: int = 5  # of a task's executor, one after another, without a report


class LostError(Exception):
    """An executor is gone; the message says how that was noticed."""


class RemoteExecutor:
    """A pulse is asked for again and again, and then all orders go out that have come since.

    News count as confirmed and answered when they are asked for the next time: by then the log
    holds them, and what was decided on them.
    """

    def __init__(self, tenant: str, quarters: Quarters, patience: Patience) -> None:
        self.quarters = quarters
        self._tenant = tenant
        self.residents: dict[JobId, int] = {}  # with the number of their stay
        self.is_ready = False
        self.is_stopping = False
        self.has_moved_out = False  # its process has ended, and its quarters are sound
        self.tokens_trained = 0
        self._patience = patience
        self._listening: Any = None
        self._orders: list[Order] = []  # that have not gone out
        self._num_heard = 0  # news of it
        self._num_logged = 0
        self._num_answered = 0
        self._heard_at: float | None = None
        self._unreachable_since: float | None = None
        self._begun_at = time.monotonic()
        self._is_slow = False

    @property
    def is_busy(self) -> bool:
        return bool(self.residents) or not self.is_ready or self.is_stopping

    def join(self, job: Job, stay: int, place: int) -> None:
        self.residents[job.id] = stay
        self._order(Join(job, stay, place))

    def release(self, job: JobId, step: int) -> None:
        self._order(Release(job, step))

    def leave(self, job: JobId, how: Departure) -> None:
        if (stay := self.residents.get(job)) is not None:
            self._order(Leave(job, stay, how))

    def secure(self, jobs: Sequence[Job]) -> None:
        """Ask for their best adapters on disk. It goes out at once, and answers no news: the log
        does not hold them yet."""
        self.quarters.order(ORDERS.dump(Orders((Secure(tuple(jobs)),), self._num_answered)))

    def listening(self, *, is_logged: bool = True) -> Any:
        """Resolves at the next pulse. Where the log holds all that was heard, all that was decided
        on it has been ordered."""
        if is_logged:
            self._num_logged = self._num_heard
            self._send_orders()
        if self._listening is None:
            call = CALL.dump(Call(self._num_logged, self._patience.pulse))
            self._listening = self.quarters.listen(self._tenant, call)
        return self._listening

    def _send_orders(self) -> None:
        if self._orders or self._num_answered < self._num_heard:
            told = ORDERS.dump(Orders(tuple(self._orders), self._num_heard))
            self.quarters.order(told)
            self._orders.clear()
            self._num_answered = self._num_heard

    def hear(self) -> Sequence[News]:
        """What is new in the pulse that has come. Raises LostError."""
        import ray
        from ray.exceptions import ActorUnavailableError, RayError

        listening, self._listening = self._listening, None
        try:
            answer: str = ray.get(listening)
        except ActorUnavailableError as error:
            now = time.monotonic()
            self._unreachable_since = self._unreachable_since or now
            if now - self._unreachable_since > self._patience.unreachable:
                raise LostError(f"unreachable: {error}") from error
            time.sleep(self._patience.pulse / 10)
            return ()
        except RayError as error:
            raise LostError(str(error).splitlines()[0]) from error
        if not answer:
            self.has_moved_out = True
            raise LostError("its process has ended")
        self._heard_at, self._unreachable_since = time.monotonic(), None
        pulse = PULSE.read(answer)
        self.tokens_trained = pulse.tokens_trained
        if pulse.pass_seconds > self._patience.stalled_pass:
            raise LostError(f"its pass takes {pulse.pass_seconds:.0f} s")
        is_slow = pulse.pass_seconds > self._patience.slow_pass
        if is_slow and not self._is_slow:
            log.warning("%s: has been in one pass for %.0f s", self._tenant, pulse.pass_seconds)
        self._is_slow = is_slow
        fresh = pulse.news[max(0, self._num_heard - pulse.first) :]
        self._num_heard = pulse.first + len(pulse.news)
        return [news for news in fresh if self._concerns_us(news)]

    def excuse(self, seconds: float) -> None:
        """Nobody listened for so long: silence does not count."""
        if self._heard_at is not None:
            self._heard_at += seconds
        if self._unreachable_since is not None:
            self._unreachable_since += seconds

    def check(self, living: frozenset[str]) -> None:
        """Raises LostError if it has been silent for too long, or its node is dead."""
        now = time.monotonic()
        for node in self.quarters.share.nodes:
            if node not in living:
                raise LostError(f"node {node[:8]} is dead")
        if self._heard_at is not None and now - self._heard_at > self._patience.silence:
            raise LostError(f"silent for {now - self._heard_at:.0f} s")
        if self._heard_at is None and now - self._begun_at > self._patience.start:
            if not self.quarters.are_there():
                self._begun_at = now  # others hold its GPUs
            else:
                raise LostError(f"has not begun within {self._patience.start:.0f} s")

    def stop(self) -> None:
        """Have its process ended; it is lost when that is gone."""
        self.is_stopping = True
        if self._heard_at is None:
            self.quarters.close()  # it may wait for its GPUs, or for its process
        else:
            self.quarters.clear()

    def _concerns_us(self, news: News) -> bool:
        """Whether it is new, and of this stay of its job; keeps account of who is there."""
        match news:
            case Ready():
                was_ready, self.is_ready = self.is_ready, True
                return not was_ready
            case Reported(job=job, stay=stay):
                return self.residents.get(job) == stay
            case Left(job=job, stay=stay):
                is_of_now = self.residents.get(job) == stay
                if is_of_now:
                    del self.residents[job]
                return is_of_now
            case Secured() | Broken():
                return True
            case _:
                assert_never(news)

    def _order(self, order: Order) -> None:
        self._orders.append(order)
