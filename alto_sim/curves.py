"""Where the losses of jobs come from that nobody trains."""

import math
import random
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from alto_policy.events import LossReported
from alto_policy.runlog import Entry
from alto_policy.types import Job, JobId
from alto_runs.errors import UserError

__all__ = ["LossCurves", "Losses", "RecordedCurves", "SyntheticCurves"]


@dataclass(frozen=True, slots=True)
class Losses:
    train: float
    val: float

    @property
    def is_lost(self) -> bool:
        """Whether training broke down: the job reports it at once, and cannot go on."""
        return not math.isfinite(self.train)


class LossCurves(Protocol):
    def losses(self, job: Job, step: int) -> Losses: ...

    def report_step(self, job: Job, step: int) -> int:
        """The step later than `step` at which the job reports next."""
        ...


class RecordedCurves:
    """The losses of a run log. A job asked past its record holds its last loss: see `num_held`."""

    def __init__(self, entries: Iterable[Entry]) -> None:
        self.num_held = 0  # answers that no run has seen
        self._reports: dict[JobId, dict[int, Losses]] = {}
        for entry in entries:
            if isinstance(report := entry.event, LossReported):
                losses = Losses(report.train_loss, report.val_loss)
                self._reports.setdefault(report.job, {}).setdefault(report.step, losses)

    def losses(self, job: Job, step: int) -> Losses:
        """The last losses recorded up to the step; the first ones before that."""
        reports = self._known(job)
        if step in reports:
            return reports[step]
        self.num_held += 1
        earlier = [known for known in reports if known < step]
        return reports[max(earlier) if earlier else min(reports)]

    def report_step(self, job: Job, step: int) -> int:
        broke = (at for at, losses in self._known(job).items() if losses.is_lost and at > step)
        return min(job.next_report_step(step), *broke, job.steps)

    def _known(self, job: Job) -> dict[int, Losses]:
        if job.id not in self._reports:
            raise UserError(f"the log has no losses of job {job.id!r}: it must have trained once")
        return self._reports[job.id]


@dataclass(frozen=True, slots=True, kw_only=True)
class SyntheticCurves:
    """A made-up landscape for studies that never ran; good for schedules, not for conclusions.

    The best learning rate grows with the square root of the batch and shrinks slowly with rank.
    A decade below it a job learns little; half a decade above it losses rise, and a decade above
    it training breaks down. Near it the jobs of high rank overfit. A draw from (seed, job) moves
    each job's floor by up to 2 %.
    """

    seed: int = 0
    start: float = 3.0  # loss before training
    floor: float = 1.0  # loss of the best job at its end
    best_learning_rate: float = 2e-4  # at rank 16 and batch size 1

    def losses(self, job: Job, step: int) -> Losses:
        fraction = step / job.steps
        decades = self._decades_above_best(job)
        if decades > 1 and fraction > 0.02:
            return Losses(math.nan, math.nan)
        draw = random.Random(f"{self.seed}/{job.id}").uniform(0, 0.02)
        reach = 1 - min(1.0, decades**2) * 0.9  # share of the way to the floor
        way = reach * (1 - math.exp(-6 * fraction)) / (1 - math.exp(-6))
        train = self.start - (self.start - self.floor * (1 + draw)) * way
        if decades > 0.5:
            train += fraction * decades
        widening = max(0.0, fraction - 0.5) * job.hyperparameters.rank / 128
        return Losses(train, train * (1.02 + widening))

    def report_step(self, job: Job, step: int) -> int:
        return job.next_report_step(step)

    def _decades_above_best(self, job: Job) -> float:
        chosen = job.hyperparameters
        if chosen.learning_rate == 0:
            return -1.0
        best = self.best_learning_rate * math.sqrt(chosen.samples_per_step)
        best *= (16 / chosen.rank) ** 0.25
        return math.log10(chosen.learning_rate / best)
