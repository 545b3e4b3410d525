"""Events of a run that trains, on their way to its log."""

import time
from collections import deque
from collections.abc import Iterable
from typing import assert_never

from alto_exec.events.inbox import Cancellation, Inbox, Submission
from alto_exec.events.past import Past
from alto_exec.events.timers import Timers
from alto_policy.events import Event, TaskArrived, TaskCancelled, TimerFired

__all__ = ["Outbox"]


class Outbox:
    """What a backend tells, what comes by the inbox, and moments for which a policy has asked, by
    the clock of the run, which goes on where the past ends."""

    def __init__(self, inbox: Inbox, past: Past) -> None:
        self._inbox: Inbox | None = inbox
        self._timers = Timers(past.timers)
        self._zero = time.monotonic() - past.end
        self._events: deque[Event] = deque()

    def __bool__(self) -> bool:
        return bool(self._events)

    def now(self) -> float:
        return time.monotonic() - self._zero

    def tell(self, event: Event) -> None:
        self._events.append(event)

    def tell_all(self, events: Iterable[Event]) -> None:
        self._events.extend(events)

    def wake_at(self, t: float) -> None:
        self._timers.add(t)

    def next(self) -> Event:
        return self._events.popleft()

    def look(self) -> None:
        """What is due by now, and what has come."""
        for _ in range(self._timers.fire(self.now())):
            self.tell(TimerFired(self.now()))
        requests = self._inbox.take() if self._inbox is not None else None
        if requests is None:
            self._inbox = None
            return
        for request in requests:
            match request:
                case Submission(task=task):
                    self.tell(TaskArrived(self.now(), task))
                case Cancellation(task=task_id):
                    self.tell(TaskCancelled(self.now(), task_id))
                case _:
                    assert_never(request)

    def seconds_to_look(self, between: float) -> float | None:
        """Until the next look, of which so many seconds lie between two while something may come by
        the inbox; None where nothing will be found by any."""
        timer = self._timers.next
        wakes = [] if timer is None else [timer - self.now()]
        looks = [] if self._inbox is None else [between]
        return max(0.0, min(wakes + looks)) if wakes or looks else None
