"""The moments at which a policy plans anew, some of which it may sleep through."""

import math
from dataclasses import dataclass

__all__ = ["Rounds", "check_round"]

_NEAR = 1e-9  # of a round, by which a sum of floats may miss it


def check_round(seconds: float) -> None:
    """Raises ValueError for rounds that would never end, or never begin anew."""
    if not 0 < seconds < math.inf:
        raise ValueError(f"round_seconds must be above 0, got {seconds}")


@dataclass(slots=True)
class Rounds:
    """An even grid in time, from the moment at which it is first needed until it no longer is."""

    seconds: float
    last: float | None = None  # None while there is no need of rounds
    wakes: float = math.inf

    def begins(self, now: float) -> bool:
        """Whether a timer is that of a round; it is not if a later one was asked for since."""
        if self.last is None or now < self.wakes:
            return False
        self.last = now
        return True

    def end(self) -> None:
        self.last, self.wakes = None, math.inf

    def sleep(self, now: float, count: int) -> float:
        """The moment of the next round but `count - 1`, of which `now` is the last."""
        self.last, self.wakes = now, now + count * self.seconds
        return self.wakes

    def wake(self, now: float) -> float | None:
        """Something has happened: the moment of the next round if it was to be slept through."""
        assert self.last is not None
        due = math.ceil((now - self.last) / self.seconds - _NEAR)
        at = self.last + max(1, due) * self.seconds
        if at >= self.wakes:
            return None
        self.wakes = at
        return at
