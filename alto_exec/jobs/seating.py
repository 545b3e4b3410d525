"""Which jobs hold rows of the bank, those that have paused among them, and how many there are."""

from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache

import torch

from alto_exec.adapters.bank import AdapterBank
from alto_exec.jobs.keeping import Keeper
from alto_exec.jobs.residence import Progress, Resident
from alto_policy.memory import MemoryModel
from alto_policy.types import Job, JobId

__all__ = ["Seating", "Space"]


@dataclass(frozen=True, slots=True)
class Space:
    """What the device may hold, by the model that those count on who launch the jobs."""

    memory: MemoryModel
    max_length: int  # tokens of a sequence

    def most_rows(self, jobs: Sequence[Job]) -> int:
        """Bank rows that there may be while these jobs train side by side."""
        return self.memory.most_rows(jobs, self.max_length)


class Seating:
    """Rows that nobody uses, or a job that has paused, stay until memory is short: to give them
    back moves the bank, and launches are recorded with its addresses. A launch counts on the rows
    of the jobs that train alone, so that is when they are given back.
    """

    def __init__(self, bank: AdapterBank, keeper: Keeper, space: Space | None) -> None:
        """Without `space` there are as many rows as jobs have needed at a time."""
        self.is_short = False  # memory has run out, whatever was counted
        self.refused: dict[JobId, Job] = {}  # launched, and there was no memory for their rows
        self._space = space
        self._bank = bank
        self._keeper = keeper
        self._parked: dict[JobId, Resident] = {}  # paused, the one that paused first in front
        # Many jobs of a grid begin with the same adapter.
        self._fresh = lru_cache(maxsize=4)(bank.fresh)

    def expect(self, jobs: Sequence[Job], seated: Sequence[Resident]) -> None:
        """These are about to train beside those that are seated: the bank moves once for all. Where
        memory runs out, that is seen when they are seated."""
        new = sum(job.hyperparameters.rank for job in jobs if job.id not in self._parked)
        keep = {job.id for job in jobs}
        try:
            if self._space is not None:
                most = self._space.most_rows([*(resident.job for resident in seated), *jobs])
                self._shrink(new, most, seated, keep=keep)
            others = [job for job in self._parked if job not in keep]
            others_rows = sum(self._parked[job].slot.rank for job in others)
            needed = self._bank.num_taken_rows - others_rows + new
            if needed > self._bank.num_rows:  # also when those who have paused have left
                for job in others:
                    self._write_out(job)
                self._bank.reserve(needed)
        except torch.OutOfMemoryError:
            self.is_short = True

    def fit(self, jobs: Sequence[Job]) -> bool:
        """Whether they may train side by side."""
        return self._space is None or self._space.memory.fits(jobs, self._space.max_length)

    def seat_or_refuse(self, job: Job, seated: Sequence[Resident]) -> Resident | None:
        """As `seat`; where memory runs out the job is among the refused, and nothing of it has
        changed."""
        try:
            return self.seat(job, seated)
        except torch.OutOfMemoryError:
            self.is_short = True
            self.refused[job.id] = job
            return None

    def seat(self, job: Job, seated: Sequence[Resident]) -> Resident:
        """Rows for the job beside those that are seated: where it paused, or from its checkpoint,
        or new. Raises UserError for a checkpoint that is damaged."""
        if (resident := self._parked.pop(job.id, None)) is not None:
            return resident
        rank = job.hyperparameters.rank
        kept = self._keeper.read(job)
        while self._parked and not self._has_room(rank):
            self._write_out(next(iter(self._parked)))
        if not self._bank.has_gap(rank) and self._has_room(rank):
            self._compact(seated)
        if kept is not None:
            return Resident(job, self._bank.join(kept.adapter), kept.progress)
        state = self._fresh(rank, job.hyperparameters.seed)
        return Resident(job, self._bank.join(state), Progress())

    def park(self, resident: Resident) -> None:
        """It keeps its rows until they are needed."""
        self._parked[resident.job.id] = resident

    def write_out(self, jobs: Sequence[JobId]) -> None:
        """Of those that are parked: they are on disk then, and their rows are free."""
        for job in jobs:
            self._write_out(job)
        for job in jobs:
            self._keeper.settle(job)

    def dismiss(self, job: JobId) -> None:
        """The job will not train again."""
        if (resident := self._parked.pop(job, None)) is not None:
            self._bank.leave(resident.slot)

    def tighten(self, seated: Sequence[Resident]) -> None:
        """Give back all rows but those of the jobs that are seated, as soon as there is memory to
        move them."""
        with suppress(torch.OutOfMemoryError):
            self._shrink(0, 0, seated, keep=())
            self.is_short = False

    def _has_room(self, rank: int) -> bool:
        return self._bank.num_rows - self._bank.num_taken_rows >= rank

    def _shrink(
        self, new: int, most: int, seated: Sequence[Resident], keep: Collection[JobId]
    ) -> None:
        """Where the bank has more than `most` rows: no more than are taken and `new` ones.

        The jobs to `keep` stay where they are, though they have paused.
        """
        bank = self._bank
        if bank.num_rows <= most:
            return
        for job in [job for job in self._parked if job not in keep]:
            if bank.num_taken_rows + new <= most:
                break
            self._write_out(job)
        if bank.num_taken_rows + new < bank.num_rows or bank.memory.is_loose:
            self._compact(seated)
            bank.give_back(bank.num_taken_rows + new)

    def _compact(self, seated: Sequence[Resident]) -> None:
        moved = self._bank.compact()
        for resident in (*seated, *self._parked.values()):
            resident.slot = moved[resident.slot]

    def _write_out(self, job: JobId) -> None:
        resident = self._parked.pop(job)
        self._keeper.keep(resident)
        self._bank.leave(resident.slot)
