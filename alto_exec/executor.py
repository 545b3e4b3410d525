"""One backbone and the jobs that train on it together."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from alto_exec.bank import AdapterBank
from alto_exec.checkpoint import Checkpoint, read_checkpoint, write_checkpoint
from alto_exec.data.dataset import Dataset
from alto_exec.evaluate import validation_loss
from alto_exec.frozen_model import FrozenModel
from alto_exec.peft_format import write_adapter
from alto_exec.residence import Losses, Progress, Resident
from alto_exec.step import train_pass
from alto_policy.events import Departure
from alto_policy.types import Job, JobId
from alto_runs.directory import RunDirectory

__all__ = ["Executor", "Report"]


@dataclass(frozen=True, slots=True)
class Report:
    """A job has come to a report, and waits."""

    job: JobId
    step: int
    losses: Losses


class Executor:
    """Residents train in fused passes. A job that has reported waits until it is resumed."""

    def __init__(self, backbone: FrozenModel, dataset: Dataset, directory: RunDirectory) -> None:
        self.backbone = backbone
        self.bank = AdapterBank(backbone.shapes, backbone.device, rows=0, dtype=backbone.dtype)
        self.dataset = dataset
        self.tokens_trained = 0
        self._directory = directory
        self._residents: dict[JobId, Resident] = {}
        self._waiting: dict[JobId, Resident] = {}  # have reported, decisions are still to come

    @property
    def residents(self) -> Sequence[JobId]:
        return (*self._residents, *self._waiting)

    @property
    def training(self) -> Sequence[JobId]:
        """Residents that do not wait for decisions."""
        return tuple(self._residents)

    def waits_at(self, job: JobId) -> int | None:
        """Step of the report on which decisions are still to come."""
        resident = self._waiting.get(job)
        return resident.progress.step if resident else None

    def launch(self, job: Job, place: int = 0) -> Report | None:
        """Give the job a slot: a new one, or from its checkpoint. The report that belongs to the
        checkpoint is handed out again, since it may have been lost. There is one `place`."""
        path = self._checkpoint_path(job.id)
        rank = job.hyperparameters.rank
        if path.exists():
            kept = read_checkpoint(path, (rank, self.bank.num_columns))
        else:
            kept = Checkpoint(Progress(), self.bank.fresh(rank, job.hyperparameters.seed))
        resident = Resident(job, self.bank.join(kept.adapter), kept.progress)
        report = kept.progress.report
        if report is None:
            self._residents[job.id] = resident
            return None
        resident.is_lost = math.isnan(report.train)
        self._waiting[job.id] = resident
        return Report(job.id, kept.progress.step, report)

    def leave(self, job: JobId, *, keep: bool) -> None:
        """Free the job's slot; what it has come to is kept on disk if it is to go on.

        It leaves between steps, not within one; a report that becomes due by the end of the step
        is kept too, and handed out when the job comes back.
        """
        resident = self._residents.pop(job, None) or self._waiting.pop(job)
        if keep:
            within_step = resident.passes > 0
            while resident.passes:
                self._train([resident])
            if within_step and _is_due(resident):
                self._make_report(resident)
            else:
                self._write_checkpoint(resident)
        self.bank.leave(resident.slot)

    def resume_all(self) -> list[tuple[JobId, Departure]]:
        """Decisions on all reports have come: the jobs train on, but for those named, which are
        at their end."""
        ends = [(job, self.resume(job)) for job in tuple(self._waiting)]
        return [(job, how) for job, how in ends if how is not None]

    def resume(self, job: JobId) -> Departure | None:
        """Decisions on the job's report have come: it trains on, or waits to leave at its end."""
        resident = self._waiting[job]
        if resident.is_lost:
            return Departure.FAILED
        if resident.progress.step == resident.job.steps:
            return Departure.FINISHED
        self._residents[job] = self._waiting.pop(job)
        return None

    def advance(self) -> list[Report]:
        """Make one fused pass; the reports that became due by it."""
        self._train(list(self._residents.values()))
        due = [r for r in self._residents.values() if r.passes == 0 and _is_due(r)]
        for resident in due:
            self._waiting[resident.job.id] = self._residents.pop(resident.job.id)
        return [self._make_report(resident) for resident in due]

    def evict(self) -> JobId:
        """Give up the pass that ran out of memory, and the job that was launched last.

        Every job begins its step anew. The job that leaves is kept on disk to go on later.
        """
        for resident in self._residents.values():
            self.bank.grad_RC[resident.slot.rows] = 0
            resident.passes, resident.step_loss, resident.step_tokens = 0, 0.0, 0
        last = next(reversed(self._residents))
        self.leave(last, keep=True)
        if self.backbone.device.type == "cuda":
            torch.cuda.empty_cache()
        return last

    def _train(self, residents: Sequence[Resident]) -> None:
        samples = self.dataset.train
        self.tokens_trained += train_pass(self.backbone, self.bank, samples, residents)

    def _make_report(self, resident: Resident) -> Report:
        """Evaluate, keep the adapter if it is the best so far, and keep the state."""
        progress, job = resident.progress, resident.job
        if resident.is_lost:
            losses = Losses(float("nan"), float("nan"))
        else:
            val = validation_loss(
                self.backbone,
                self.bank,
                self.dataset.validation,
                resident.slot,
                job.hyperparameters.scale,
            )
            losses = Losses(progress.loss_sum / progress.loss_steps, val)
        if losses.val < progress.best_val:
            progress.best_val = losses.val
            self._write_best(resident)
        progress.loss_sum, progress.loss_steps, progress.report = 0.0, 0, losses
        self._write_checkpoint(resident)
        return Report(job.id, progress.step, losses)

    def _write_best(self, resident: Resident) -> None:
        write_adapter(
            self._directory.job_folder(resident.job.id),
            self.bank,
            self.bank.state(resident.slot).value_rC,
            resident.job.hyperparameters,
            self.backbone.base_model,
        )

    def _write_checkpoint(self, resident: Resident) -> None:
        state = Checkpoint(resident.progress, self.bank.state(resident.slot))
        write_checkpoint(self._checkpoint_path(resident.job.id), state)

    def _checkpoint_path(self, job: JobId) -> Path:
        return self._directory.checkpoint_path(job)


def _is_due(resident: Resident) -> bool:
    step, job = resident.progress.step, resident.job
    return resident.is_lost or step == job.next_report_step(step - 1)
