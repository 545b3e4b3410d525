"""Moments at which a policy has asked to be woken."""

from collections.abc import Iterable

__all__ = ["Timers"]


class Timers:
    def __init__(self, pending: Iterable[float] = ()) -> None:
        self._pending = list(pending)

    @property
    def next(self) -> float | None:
        """The earliest that has not fired."""
        return min(self._pending, default=None)

    def add(self, t: float) -> None:
        self._pending.append(t)

    def fire(self, now: float) -> int:
        """How many are due; they are pending no more."""
        before = len(self._pending)
        self._pending = [t for t in self._pending if t > now]
        return before - len(self._pending)
