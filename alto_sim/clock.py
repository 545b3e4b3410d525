"""The simulated time: callbacks on SimPy's event heap."""

from collections.abc import Callable
from heapq import heappush

import simpy
from simpy.core import EmptySchedule
from simpy.events import NORMAL, URGENT, EventPriority

__all__ = ["Clock"]


class _Environment(simpy.Environment):
    def schedule_at(self, t: float, event: simpy.Event, priority: EventPriority) -> None:
        """SimPy takes delays alone, and `now + (t - now)` may miss t by a rounding."""
        heappush(self._queue, (t, priority, next(self._eid), event))


class _Alarm(simpy.Event):
    def __init__(self, environment: _Environment, callback: Callable[[], None]) -> None:
        self.env = environment
        self.callbacks = [lambda _: callback()]
        self._value = None
        self._ok = True


class Clock:
    """Callbacks of the same moment run in the order in which they were asked for."""

    def __init__(self) -> None:
        self._environment = _Environment()

    def now(self) -> float:
        return float(self._environment.now)

    def at(self, t: float, callback: Callable[[], None], *, first: bool = False) -> None:
        """Run the callback at t, or now if t is past; `first` before others of that moment."""
        environment = self._environment
        alarm = _Alarm(environment, callback)
        environment.schedule_at(max(t, environment.now), alarm, URGENT if first else NORMAL)

    def after(self, seconds: float, callback: Callable[[], None]) -> None:
        """Run the callback at once if there is nothing to wait for."""
        if seconds > 0:
            self.at(self._environment.now + seconds, callback)
        else:
            callback()

    def step(self) -> bool:
        """Run the next callback; False if there is none."""
        try:
            self._environment.step()
        except EmptySchedule:
            return False
        return True
