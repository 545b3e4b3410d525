"""What an executor's jobs leave on their way to the disk, and how long others wait for it."""

import math

from alto_policy.events import Departure
from alto_policy.types import Job, JobId
from alto_sim.times.overheads import Departed, Leaving
from alto_sim.times.writing import Writers, Writing

__all__ = ["OlderDisk", "disk_of"]


def disk_of(leaving: Leaving | Writing) -> "OlderDisk | Writers":
    """By the rule of the executor whose times they are."""
    return Writers(leaving) if isinstance(leaving, Writing) else OlderDisk(leaving)


class OlderDisk:
    """Jobs that leave at one moment are written side by side, and what was to be written before is
    there: the rule of `Leaving`."""

    __slots__ = "_at", "_departed", "_leaving", "_waited"

    def __init__(self, leaving: Leaving) -> None:
        self._leaving = leaving
        self._departed = Departed()
        self._at = -math.inf
        self._waited = 0.0

    def report(self, now: float, job: Job, since_best: int) -> None:
        """Nobody feels it."""

    def leave(self, now: float, job: Job, how: Departure, since_best: int) -> bool:
        """A job leaves that has reported so often since its best report; whether others feel it."""
        if self._at != now:
            self._end()
            self._at = now
        self._departed.add(job.hyperparameters.rank, how, since_best)
        return self._departed.waited(self._leaving) + self._departed.beside(self._leaving) > 0

    def give_up(self, now: float, job: JobId) -> None:
        """A job that has paused is stopped, and all that leaves at this moment is waited for."""
        self._departed.is_given_up |= self._at == now

    def settle(self) -> tuple[float, float]:
        """Seconds that are waited before others train; and those in which they train beside what
        nobody waits for."""
        beside = self._end()
        waited, self._waited = self._waited, 0.0
        return waited, beside

    def _end(self) -> float:
        departed, self._departed = self._departed, Departed()
        self._waited += departed.waited(self._leaving)
        return departed.beside(self._leaving)
