"""Best adapters on their way to the disk, and who waits for them."""

import math
from collections.abc import Collection
from dataclasses import dataclass

from alto_policy.events import Departure
from alto_policy.types import Job, JobId
from alto_sim.times.checked import check_seconds

__all__ = ["Writers", "Writing"]

_AT_ONCE = 16  # adapters; further ones of jobs past their best wait for another report
_ROUNDING = 1e-9  # ranks


@dataclass(frozen=True, slots=True)
class Writing:
    """Seconds of each rank. What replaces a file takes longer than what is new: the file system has
    its blocks on the disk before it lets go of the old ones."""

    alone: float  # of an adapter, however few are written beside it
    together: float  # of all that are written
    again: float  # times as long, where the job has an adapter on the disk

    def __post_init__(self) -> None:
        check_seconds(self)

    def ranks_per_second(self, adapters: int) -> float:
        """Of each of so many that are written at once."""
        return 1 / max(self.alone, self.together * adapters, 1e-12)


class Writers:
    """A job's best adapter is written once it is past it, or leaves.

    Of those that leave at a moment, others wait for the ones that do not come back; what pauses is
    written beside what trains, and is waited for once it is given up.
    """

    __slots__ = (
        "_at", "_given_up", "_gone", "_kept", "_left", "_now", "_paused", "_times", "_unsaved",
        "_waited",
    )  # fmt: skip

    def __init__(self, times: Writing) -> None:
        self._times = times
        self._left: dict[JobId, float] = {}  # ranks, by job
        self._now = 0.0  # until when they are written
        self._unsaved: set[JobId] = set()  # whose best adapter is in memory alone
        self._kept: set[JobId] = set()  # of whom one is on the disk, or on its way there
        self._at = -math.inf
        self._gone: list[Job] = []  # at that moment
        self._paused: list[Job] = []
        self._given_up: list[JobId] = []
        self._waited = 0.0

    def report(self, now: float, job: Job, since_best: int) -> None:
        """The job reports, so often since its best report."""
        if since_best and job.id not in self._unsaved:
            return
        self._come_to(now)
        if not since_best:
            self._unsaved.add(job.id)
        if since_best and len(self._left) < _AT_ONCE:
            self._begin(job)

    def leave(self, now: float, job: Job, how: Departure, since_best: int) -> bool:
        """Whether others may feel it."""
        self._come_to(now)
        if how.comes_back:
            self._paused.append(job)
            return False
        self._gone.append(job)
        return job.id in self._unsaved or job.id in self._left

    def give_up(self, now: float, job: JobId) -> None:
        """A job that has paused is stopped."""
        self._come_to(now)
        self._given_up.append(job)

    def settle(self) -> tuple[float, float]:
        """Seconds that are waited before others train; beside what is written they lose none."""
        self._end()
        waited, self._waited = self._waited, 0.0
        return waited, 0.0

    def _come_to(self, now: float) -> None:
        if now != self._at:
            self._end()
            self._at = now
            self._write_until(now)

    def _end(self) -> None:
        gone, self._gone = self._gone, []
        paused, self._paused = self._paused, []
        given_up, self._given_up = self._given_up, []
        for job in gone:
            self._begin(job)
        self._waited += self._until({job.id for job in gone})
        for job in paused:
            self._begin(job)
        self._waited += self._until(given_up)

    def _begin(self, job: Job) -> None:
        if job.id in self._unsaved:
            self._unsaved.remove(job.id)
            ranks = job.hyperparameters.rank * (self._times.again if job.id in self._kept else 1)
            self._left[job.id] = self._left.get(job.id, 0.0) + ranks
            self._kept.add(job.id)

    def _until(self, jobs: Collection[JobId]) -> float:
        """Seconds until these are on the disk, by which time they are."""
        begin = self._now
        while any(job in self._left for job in jobs):
            self._write(self._seconds_to_next())
        return self._now - begin

    def _write_until(self, now: float) -> None:
        while self._left and self._now < now:
            self._write(min(self._seconds_to_next(), now - self._now))
        self._now = max(self._now, now)

    def _write(self, seconds: float) -> None:
        ranks = seconds * self._times.ranks_per_second(len(self._left)) + _ROUNDING
        self._left = {job: left - ranks for job, left in self._left.items() if left > ranks}
        self._now += seconds

    def _seconds_to_next(self) -> float:
        return min(self._left.values()) / self._times.ranks_per_second(len(self._left))
