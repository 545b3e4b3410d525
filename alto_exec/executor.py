"""One backbone and the jobs that train on it together."""

import math
import time
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch

from alto_exec.adapters.bank import AdapterBank
from alto_exec.data.dataset import Dataset
from alto_exec.jobs.keeping import Keeper
from alto_exec.jobs.metering import Meter
from alto_exec.jobs.residence import Losses, Resident
from alto_exec.jobs.seating import Seating, Space
from alto_exec.passes.evaluation import Adapter, validation_losses
from alto_exec.passes.frozen_model import FrozenModel
from alto_exec.passes.objective import References
from alto_exec.passes.training import Lookahead, train_pass
from alto_policy.events import Departure
from alto_policy.types import Job, JobId, TaskId
from alto_runs.files.directory import RunDirectory

__all__ = ["Executor", "Report"]


@dataclass(frozen=True, slots=True)
class Report:
    """A job has come to a report, and waits."""

    job: JobId
    step: int
    losses: Losses


class Executor:
    """Residents train in fused passes. A job that has reported waits until it is resumed.

    Where it `is_durable` all that a job has come to is on disk when it has left. Otherwise jobs
    that pause stay where they are until their place is needed. Best adapters of jobs that are
    about to stop are secured first. The bank leaves to the passes what the model of memory counts
    on for them.
    """

    def __init__(
        self,
        backbone: FrozenModel,
        dataset: Dataset,
        directory: RunDirectory,
        *,
        bank: AdapterBank,
        space: Space | None = None,
        is_durable: bool = True,
        meter: Meter | None = None,
    ) -> None:
        """The bank is empty, and from now on the executor's own."""
        self.backbone = backbone
        self.bank = bank
        self.dataset = dataset
        self.tokens_trained = 0
        self.keeper = Keeper(directory, self.bank, backbone.base_model, is_durable=is_durable)
        self._seating = Seating(self.bank, self.keeper, space)
        self._meter = meter or Meter(TaskId(""), lambda _: None)
        self._validation_tokens = sum(example.num_tokens for example in dataset.validation)
        self._references = References()
        self._ahead = Lookahead() if backbone.device.type == "cuda" else None
        self._residents: dict[JobId, Resident] = {}
        self._waiting: dict[JobId, Resident] = {}  # have reported, decisions are still to come

    @property
    def residents(self) -> Sequence[JobId]:
        return (*self._residents, *self._waiting, *self._seating.refused)

    @property
    def _seated(self) -> Sequence[Resident]:
        return (*self._residents.values(), *self._waiting.values())

    @property
    def training(self) -> Sequence[JobId]:
        """Residents that do not wait for decisions."""
        return (*self._residents, *self._seating.refused)

    def expect(self, jobs: Sequence[Job]) -> None:
        """These are about to be launched: the bank moves once for all of them."""
        self._seating.expect(jobs, self._seated)

    def launch(self, job: Job, place: int = 0) -> Report | None:
        """Give the job a slot: a new one, or from its checkpoint. The report that belongs to the
        checkpoint is handed out again, since it may have been lost. There is one `place`.

        Where memory has no slot for it, that is told by the next pass.
        """
        with self._meter.launch():
            self.expect([job])
            resident = self._seating.seat_or_refuse(job, self._seated)
        if resident is None:
            return None
        report = resident.progress.report
        if report is None:
            self._residents[job.id] = resident
            return None
        resident.is_lost = math.isnan(report.train)
        self._waiting[job.id] = resident
        return Report(job.id, resident.progress.step, report)

    def leave(self, job: JobId, *, keep: bool) -> None:
        """Free the job's slot; what it has come to is kept if it is to go on. Its best adapter is
        on its way to the disk in any case.

        It leaves between steps, not within one; a report that becomes due by the end of the step
        is kept too, and handed out when the job comes back.
        """
        if self._seating.refused.pop(job, None) is not None:
            return
        resident = self._residents.pop(job, None) or self._waiting.pop(job)
        if keep:
            while resident.passes:
                self._make_reports(self._train([resident]))
        self.keeper.keep_best(resident.job)
        if keep and not self.keeper.is_durable:
            self._seating.park(resident)
            return
        if keep:
            self.keeper.keep(resident)
            self.keeper.settle(job)
        elif self.keeper.is_durable:
            self.keeper.dismiss(resident.job)
        self.bank.leave(resident.slot)
        if not self.residents:
            self._meter.settle()  # it may end any time now

    def secure(self, jobs: Sequence[Job]) -> None:
        """Have their best adapters on disk."""
        self.keeper.secure(jobs)

    def forget(self, job: JobId) -> None:
        """The job will not train again; no state of it stays on the disk."""
        self._seating.dismiss(job)
        self.keeper.give_up(job)

    def reach(self, targets: Sequence[tuple[Job, int]]) -> None:
        """Make the jobs' reports up to these steps again, if a kill has taken them: their best
        adapters become what they were. Jobs that are not here come back side by side, as far as
        there is room, and what they have come to is kept. Raises OutOfMemoryError; then another
        job is to be evicted."""
        left = deque(targets)
        while left:
            group = [left.popleft()]
            there = [resident.job for resident in self._seated]
            while left and self._seating.fit([*there, *(job for job, _ in group), left[0][0]]):
                group.append(left.popleft())
            here = {resident.job.id: resident for resident in self._seated}
            guests: list[Resident] = []
            try:
                for job in [job for job, _ in group if job.id not in here]:
                    guests.append(self._seating.seat(job, (*self._seated, *guests)))
                here |= {guest.job.id: guest for guest in guests}
                _bring_back(self, [(here[job.id], step) for job, step in group])
            finally:
                for guest in guests:
                    self._seating.park(guest)
            if self.keeper.is_durable:
                self._seating.write_out([guest.job.id for guest in guests])

    def resume_all(self) -> list[tuple[JobId, Departure]]:
        """Decisions on all reports have come: the jobs train on, but for those named, which are
        at their end."""
        waiting = tuple(self._waiting.items())
        ends = [(job, self.resume(job, resident.progress.step)) for job, resident in waiting]
        return [(job, how) for job, how in ends if how is not None]

    def resume(self, job: JobId, step: int) -> Departure | None:
        """Decisions on the job's report of `step` have come: it trains on, or waits to leave at
        its end. If that is not what it waits for, nothing happens."""
        resident = self._waiting.get(job)
        if resident is None or resident.progress.step != step:
            return None
        if resident.is_lost:
            return Departure.FAILED
        if resident.progress.step == resident.job.steps:
            return Departure.FINISHED
        self._residents[job] = self._waiting.pop(job)
        return None

    def advance(self) -> list[Report]:
        """Make one fused pass; the reports that became due by it. Raises OutOfMemoryError, also
        for a job that had no room when it was launched; then a job is to be evicted. A pass that
        could have kept fewer activations costs none: the next one does."""
        if self._seating.refused:
            raise torch.OutOfMemoryError
        if self._seating.is_short:
            self._seating.tighten(self._seated)
        try:
            due = self._train(list(self._residents.values()))
        except torch.OutOfMemoryError:
            if not self.backbone.activations.give_way():
                raise
            _begin_anew(self._residents.values())
            return []
        for resident in due:
            self._waiting[resident.job.id] = self._residents.pop(resident.job.id)
        if not due:
            return []
        names = [resident.job.id for resident in due]
        with self._meter.evaluation(names, len(due) * self._validation_tokens):
            return self._make_reports(due)

    def evict(self) -> JobId:
        """Give up the pass that ran out of memory, and the job that was launched last.

        Every job begins its step anew. The job that leaves is kept to go on later. One that was
        refused goes first, and the others go on as they are. One that has reported goes last.
        """
        if self._seating.refused:
            return self._seating.refused.popitem()[0]
        _begin_anew(self._residents.values())
        last = next(reversed(self._residents or self._waiting))
        self.leave(last, keep=True)
        self._seating.is_short = True
        return last

    def _train(self, residents: Sequence[Resident]) -> list[Resident]:
        """One fused pass; those whose report became due by it."""
        start, backbone = time.monotonic(), self.backbone
        replayed, travelled = backbone.replayed, backbone.travelled
        tokens = train_pass(
            backbone,
            self.bank,
            self.dataset.train,
            residents,
            ahead=self._ahead,
            references=self._references,
        )
        self._meter.trained(
            residents,
            tokens,
            time.monotonic() - start,
            replayed_rows=backbone.replayed.rows - replayed.rows,
            recorded=backbone.replayed.recorded - replayed.recorded,
            travelled=backbone.travelled - travelled,
        )
        self.tokens_trained += tokens
        return [resident for resident in residents if resident.passes == 0 and _is_due(resident)]

    def _make_reports(self, due: Sequence[Resident]) -> list[Report]:
        """Evaluate all of them together, keep the adapters that are the best so far, and the
        states."""
        if not due:
            return []
        sound = [resident for resident in due if not resident.is_lost]
        found = validation_losses(
            self.backbone,
            self.bank,
            self.dataset.validation,
            [Adapter.of(resident) for resident in sound],
            self._references,
        )
        val = dict(zip((resident.job.id for resident in sound), found, strict=True))
        reports = []
        for resident in due:
            progress = resident.progress
            losses = Losses(float("nan"), float("nan"))
            if not resident.is_lost:
                train = progress.loss_sum / progress.loss_steps
                losses = Losses(train, val[resident.job.id])
            if losses.val < progress.best_val:
                progress.best_val = losses.val
                self.keeper.improved(resident)
            progress.loss_sum, progress.loss_steps, progress.report = 0.0, 0, losses
            reports.append(Report(resident.job.id, progress.step, losses))
        self.keeper.reported(due)
        return reports


def _bring_back(executor: Executor, targets: Sequence[tuple[Resident, int]]) -> None:
    """In passes that all of them share."""
    while behind := [r for r, step in targets if r.progress.step < step and not r.is_lost]:
        try:
            executor._make_reports(executor._train(behind))
        except torch.OutOfMemoryError:
            for resident in behind:
                _begin_step_anew(resident)
            if not executor.backbone.activations.give_way():
                raise


def _begin_anew(residents: Iterable[Resident]) -> None:
    """The steps that a pass was part of whose memory ran out."""
    for resident in residents:
        _begin_step_anew(resident)
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _begin_step_anew(resident: Resident) -> None:
    resident.passes, resident.step_loss, resident.step_tokens = 0, 0.0, 0


def _is_due(resident: Resident) -> bool:
    step, job = resident.progress.step, resident.job
    return resident.is_lost or step == job.next_report_step(step - 1)
