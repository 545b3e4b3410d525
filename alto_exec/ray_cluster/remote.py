"""The head's end of one executor."""

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, assert_never

from alto_exec.ray_cluster.messages import (
    Broken,
    Join,
    Leave,
    Left,
    News,
    Order,
    Pulse,
    Ready,
    Release,
    Reported,
)
from alto_policy.events import Departure
from alto_policy.types import Job, JobId

__all__ = ["LISTENERS", "LostError", "Patience", "RemoteExecutor"]

log = logging.getLogger(__name__)

# Calls of one group are carried out in the order in which they were made.
LISTENERS = {"orders": 1, "listeners": 1}


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """How long to wait for what, in seconds."""

    pulse: float = 1.0  # between two signs of life
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
    """Orders go out at once; a pulse is asked for again and again.

    News count as confirmed when they are asked for the next time: by then the log holds them.
    """

    def __init__(
        self, name: str, actor: Any, group: Any, nodes: frozenset[str], patience: Patience
    ) -> None:
        self._name = name
        self.nodes = nodes  # ids of those that it is on
        self.residents: dict[JobId, int] = {}  # with the number of their stay
        self.is_ready = False
        self.is_stopping = False
        self.tokens_trained = 0
        self._actor = actor
        self._group = group
        self._patience = patience
        self._listening: Any = None
        self._num_heard = 0  # news of it
        self._heard_at: float | None = None
        self._unreachable_since: float | None = None
        self._begun_at = time.monotonic()
        self._is_slow = False

    @property
    def is_busy(self) -> bool:
        return bool(self.residents) or not self.is_ready or self.is_stopping

    def join(self, job: Job, stay: int) -> None:
        self.residents[job.id] = stay
        self._order(Join(job, stay))

    def release(self, job: JobId, step: int) -> None:
        self._order(Release(job, step))

    def leave(self, job: JobId, how: Departure) -> None:
        if (stay := self.residents.get(job)) is not None:
            self._order(Leave(job, stay, how))

    def listening(self) -> Any:
        """Resolves at the next pulse."""
        if self._listening is None:
            self._listening = self._actor.listen.options(concurrency_group="listeners").remote(
                self._num_heard, self._patience.pulse
            )
        return self._listening

    def hear(self) -> Sequence[News]:
        """What is new in the pulse that has come. Raises LostError."""
        import ray
        from ray.exceptions import ActorUnavailableError, RayError

        listening, self._listening = self._listening, None
        try:
            pulse: Pulse = ray.get(listening)
        except ActorUnavailableError as error:
            now = time.monotonic()
            self._unreachable_since = self._unreachable_since or now
            if now - self._unreachable_since > self._patience.unreachable:
                raise LostError(f"unreachable: {error}") from error
            time.sleep(self._patience.pulse / 10)
            return ()
        except RayError as error:
            raise LostError(str(error).splitlines()[0]) from error
        self._heard_at, self._unreachable_since = time.monotonic(), None
        self.tokens_trained = pulse.tokens_trained
        if pulse.pass_seconds > self._patience.stalled_pass:
            raise LostError(f"its pass takes {pulse.pass_seconds:.0f} s")
        is_slow = pulse.pass_seconds > self._patience.slow_pass
        if is_slow and not self._is_slow:
            log.warning("%s: has been in one pass for %.0f s", self._name, pulse.pass_seconds)
        self._is_slow = is_slow
        fresh = pulse.news[max(0, self._num_heard - pulse.first) :]
        self._num_heard = pulse.first + len(pulse.news)
        return [news for news in fresh if self._concerns_us(news)]

    def check(self, living: frozenset[str]) -> None:
        """Raises LostError if it has been silent for too long, or its node is dead."""
        now = time.monotonic()
        if dead := self.nodes - living:
            raise LostError(f"node {min(dead)[:8]} is dead")
        if self._heard_at is not None and now - self._heard_at > self._patience.silence:
            raise LostError(f"silent for {now - self._heard_at:.0f} s")
        if self._heard_at is None and now - self._begun_at > self._patience.start:
            if not self._group.wait(timeout_seconds=0):
                self._begun_at = now  # others hold its GPUs
            else:
                raise LostError(f"has not begun within {self._patience.start:.0f} s")

    def end(self) -> None:
        """End its process, whatever it is doing, and give its GPUs back to the cluster."""
        import ray
        from ray.util.placement_group import remove_placement_group

        ray.kill(self._actor, no_restart=True)
        remove_placement_group(self._group)

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
            case Broken():
                return True
            case _:
                assert_never(news)

    def _order(self, order: Order) -> None:
        self._actor.order.options(concurrency_group="orders").remote((order,))
