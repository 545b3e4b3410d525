"""The simulated time: callbacks on SimPy's event heap."""

from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from heapq import heappush
from typing import Any

import simpy
from simpy.events import NORMAL

__all__ = ["Clock"]


class _Alarm:
    """An event of SimPy's that has happened once its moment comes; one callback waits for it."""

    __slots__ = ("callbacks",)
    _ok = True

    def __init__(self, callback: Callable[[], None]) -> None:
        self.callbacks = (lambda _: callback(),)


class Clock(simpy.Environment):
    """Callbacks of the same moment run in the order in which they were asked for."""

    def __init__(self) -> None:
        super().__init__(0.0)
        self._due: deque[Callable[[], None]] = deque()
        self._put_off: list[Callable[[], None]] = []

    def at(self, t: float, callback: Callable[[], None]) -> None:
        """Run the callback at t, or now if t is past.

        SimPy's own `schedule` takes delays alone, and `now + (t - now)` may miss t by a rounding.
        """
        now = self._now
        alarm: Any = _Alarm(callback)
        heappush(self._queue, (t if t > now else now, NORMAL, next(self._eid), alarm))

    def each_after(self, seconds: float, callbacks: Sequence[Callable[[], None]]) -> None:
        """Have `settle` run them one by one: cheaper than a place on the heap for each."""
        self.after(seconds, partial(self._due.extend, callbacks))

    def soon(self, callback: Callable[[], None]) -> None:
        """Have `settle` run it at this moment, after all that is due one by one."""
        self._put_off.append(callback)

    def settle(self) -> bool:
        """Run what is due next at this moment; False if nothing is left but the heap."""
        if self._due:
            self._due.popleft()()
        elif self._put_off:
            callbacks, self._put_off = self._put_off, []
            for callback in callbacks:
                callback()
        else:
            return False
        return True

    def advance(self, t: float) -> None:
        """Go on to t, unless it is past; no callback may be due before."""
        self._now = max(self._now, t)

    def after(self, seconds: float, callback: Callable[[], None]) -> None:
        """Run the callback at once if there is nothing to wait for."""
        if seconds > 0:
            self.at(self._now + seconds, callback)
        else:
            callback()
