"""The simulated time: callbacks on SimPy's event heap."""

from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from heapq import heappop, heappush
from typing import Any

import simpy
from simpy.events import NORMAL

__all__ = ["Clock"]


class Clock(simpy.Environment):
    """Callbacks of the same moment run in the order in which they were asked for.

    They stand on the heap themselves: an event around each, with a list of those who wait for it,
    took as long as what it told.
    """

    def __init__(self) -> None:
        super().__init__(0.0)
        self._heap: list[Any] = self._queue
        self._due: deque[Callable[[], None]] = deque()
        self._put_off: list[Callable[[], None]] = []

    def at(self, t: float, callback: Callable[[], None]) -> None:
        """Run the callback at t, or now if t is past.

        SimPy's own `schedule` takes delays alone, and `now + (t - now)` may miss t by a rounding.
        """
        now = self._now
        heappush(self._heap, (t if t > now else now, NORMAL, next(self._eid), callback))

    def go_on(self, before: float) -> bool:
        """Run what is due next at this moment, or else go on to the next callback that stands
        before that time; False if there is neither."""
        if self._due:
            self._due.popleft()()
        elif self._put_off:
            callbacks, self._put_off = self._put_off, []
            for callback in callbacks:
                callback()
        elif self._heap and self._heap[0][0] < before:
            self._now, _, _, callback = heappop(self._heap)
            callback()
        else:
            return False
        return True

    def each_after(self, seconds: float, callbacks: Sequence[Callable[[], None]]) -> None:
        """Have `go_on` run them one by one: cheaper than a place on the heap for each."""
        self.after(seconds, partial(self._due.extend, callbacks))

    def soon(self, callback: Callable[[], None]) -> None:
        """Have `go_on` run it at this moment, after all that is due one by one."""
        self._put_off.append(callback)

    def advance(self, t: float) -> None:
        """Go on to t, unless it is past; no callback may be due before."""
        if t > self._now:
            self._now = t

    def after(self, seconds: float, callback: Callable[[], None]) -> None:
        """Run the callback at once if there is nothing to wait for."""
        if seconds > 0:
            self.at(self._now + seconds, callback)
        else:
            callback()
