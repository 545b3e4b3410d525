"""Where the losses of jobs come from that nobody trains."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol, Self

from alto_policy.events import LossReported
from alto_policy.frozen import quick
from alto_policy.runlog import Entry
from alto_policy.types import Job, JobId
from alto_runs.errors import UserError

__all__ = ["LossCurves", "Losses", "RecordedCurves"]


@quick
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
    """Losses by job and step. A job asked past its record holds its last loss: see `num_held`."""

    def __init__(self, reports: Mapping[JobId, Mapping[int, Losses]]) -> None:
        self.num_held = 0  # answers that no run has seen
        self._reports = reports
        self._broken = {
            job: [step for step, losses in told.items() if losses.is_lost]
            for job, told in reports.items()
        }

    @classmethod
    def of_log(cls, entries: Iterable[Entry]) -> Self:
        """The losses of a run log; of two reports of a step the first one counts."""
        reports: dict[JobId, dict[int, Losses]] = {}
        for entry in entries:
            if isinstance(report := entry.event, LossReported):
                losses = Losses(report.train_loss, report.val_loss)
                reports.setdefault(report.job, {}).setdefault(report.step, losses)
        return cls(reports)

    def losses(self, job: Job, step: int) -> Losses:
        """The last losses recorded up to the step; the first ones before that."""
        reports = self._known(job)
        if step in reports:
            return reports[step]
        self.num_held += 1
        earlier = [known for known in reports if known < step]
        return reports[max(earlier) if earlier else min(reports)]

    def report_step(self, job: Job, step: int) -> int:
        self._known(job)
        broke = (at for at in self._broken[job.id] if at > step)
        return min(job.next_report_step(step), *broke, job.steps)

    def _known(self, job: Job) -> Mapping[int, Losses]:
        if job.id not in self._reports:
            raise UserError(
                f"job {job.id!r} has not reported in this run, which so does not tell how it would "
                "go on; simulate the trace or the study of the run instead"
            )
        return self._reports[job.id]
