"""The simulated time: callbacks on SimPy's event heap."""

from collections import deque
from collections.abc import Callable, Sequence
from heapq import heappop, heappush
from typing import Any

import simpy
from simpy.events import NORMAL

__all__ = ["Clock"]


class Clock(simpy.Environment):
    """Callbacks of the same moment run in the order in which they were asked for.

    They stand on the heap themselves, with what they are to be called with: an event around each,
    with a list of those who wait for it, took as long as what it told.
    """

    now: float = 0.0  # no property, as SimPy has it: each event is stamped by it

    def __init__(self) -> None:
        super().__init__(0.0)
        self._heap: list[Any] = self._queue
        self._due: deque[Callable[[], None]] = deque()
        self._put_off: list[Callable[[], None]] = []

    def at(self, t: float, callback: Callable[..., None], *arguments: object) -> None:
        """Call back at t, or now if t is past.

        SimPy's own `schedule` takes delays alone, and `now + (t - now)` may miss t by a rounding.
        """
        now = self.now
        t = t if t > now else now
        heappush(self._heap, (t, NORMAL, next(self._eid), callback, arguments))

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
            self.now, _, _, callback, arguments = heappop(self._heap)
            callback(*arguments)
        else:
            return False
        return True

    def each_after(self, seconds: float, callbacks: Sequence[Callable[[], None]]) -> None:
        """Have `go_on` run them one by one: cheaper than a place on the heap for each."""
        self.after(seconds, self._due.extend, callbacks)

    def soon(self, callback: Callable[[], None]) -> None:
        """Have `go_on` run it at this moment, after all that is due one by one."""
        self._put_off.append(callback)

    def advance(self, t: float) -> None:
        """Go on to t, unless it is past; no callback may be due before."""
        if t > self.now:
            self.now = t

    def after(self, seconds: float, callback: Callable[..., None], *arguments: object) -> None:
        """Call back at once if there is nothing to wait for."""
        if seconds > 0:
            t = self.now + seconds
            heappush(self._heap, (t, NORMAL, next(self._eid), callback, arguments))
        else:
            callback(*arguments)
