"""What an executor's jobs have come to, on a disk or in a store: beside training, and in the order
that counts."""

import os
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import NamedTuple

from torch import Tensor

from alto_exec.adapters.bank import AdapterBank
from alto_exec.adapters.file_order import begin_copy, weights_of
from alto_exec.adapters.peft_format import BaseModel, write_adapter
from alto_exec.jobs.checkpoint import Checkpoint, read_checkpoint, write_checkpoint
from alto_exec.jobs.residence import Progress, Resident
from alto_exec.jobs.writes import Writes
from alto_policy.types import Hyperparameters, Job, JobId
from alto_runs.files.directory import RunDirectory

__all__ = ["Keeper"]

_ADAPTER_THREADS, _STATE_THREADS = 16, 2  # jobs that stop wait for adapters, never behind states
_WRITTEN_PER_SECOND = 1e9  # bytes, to a file
_SHARE = 0.05  # of the time may go into checkpoints
_SHARE_BESIDE = 0.1  # where training waits for the copy alone
_MOST_WAITING = 4e9  # bytes on their way to the disk; further checkpoints are left out


class _Best(NamedTuple):
    copy: Tensor  # in main memory
    step: int  # of the job, at which it was that


class Keeper:
    """A job's best adapter is on disk before a checkpoint that counts on it.

    A best adapter waits in main memory until its job leaves, is past its best, or is about to stop,
    which `secure` is told. Checkpoints come as often as writing them takes a twentieth of the time;
    on a GPU whose executor may be lost by itself (`is_durable`) a tenth of it, since training waits
    for the copy alone where one that is still on its way is waited out. None is made of a job at
    its end. What was trained since is trained again after a kill, to the same end.
    """

    def __init__(
        self,
        directory: RunDirectory,
        bank: AdapterBank,
        base_model: BaseModel,
        *,
        is_durable: bool,
    ) -> None:
        self.is_durable = is_durable
        self._directory = directory
        self._bank = bank
        self._base_model = base_model
        self._num_threads = min(_ADAPTER_THREADS, len(os.sched_getaffinity(0)))
        self._adapters = Writes(self._num_threads, "adapters")
        self._states = Writes(_STATE_THREADS, "states")
        self._best: dict[JobId, _Best] = {}  # not on disk yet
        self._kept: dict[JobId, float] = {}  # when, by the clock of `time.monotonic`
        self._start = time.monotonic()

    def read(self, job: Job) -> Checkpoint | None:
        """The job's last checkpoint. Raises UserError where it is damaged or of another rank."""
        self.settle(job.id)
        like = self._bank.memory.state_like(job.hyperparameters.rank)
        return read_checkpoint(self._directory.checkpoint(job.id), like)

    def improved(self, resident: Resident) -> None:
        """What the job holds now is its best adapter."""
        job = resident.job.id
        before = self._best[job].copy if job in self._best else None
        copy = begin_copy(self._bank, resident.slot.rows, before)
        self._best[job] = _Best(copy, resident.progress.step)

    def reported(self, residents: Sequence[Resident]) -> None:
        """The reports that their progress holds are about to be told.

        Who is past its best may be stopped for that soon: whoever then waits for the adapter finds
        it written, but where the disk is behind, which takes what must be alone.
        """
        for resident in residents:
            if resident.progress.step == resident.job.steps:
                self.keep_best(resident.job)
            elif self._wants(resident):
                self.keep(resident)
            elif (
                _is_past_its_best(resident.progress)
                and self._adapters.num_under_way < self._num_threads
            ):
                self.keep_best(resident.job)

    def secure(self, jobs: Sequence[Job]) -> None:
        """Their best adapters are on disk when this is done."""
        for job in jobs:
            self.keep_best(job)
        for job in jobs:
            self._adapters.settle(job.id)

    def _wants(self, resident: Resident) -> bool:
        """Whether a checkpoint is worth what it costs now."""
        job = resident.job.id
        last = self._states.last(job)
        is_local = self._directory.stored_at is None
        if (self.is_durable or not is_local) and last is not None and not last.done():
            return False
        is_copied = self.is_durable and self._bank.value_RC.device.type == "cuda"
        share = _SHARE_BESIDE if is_copied else _SHARE
        bytes_per_row = self._bank.memory.state_bytes_per_row
        seconds = bytes_per_row * self._bank.num_rows / _WRITTEN_PER_SECOND / share
        since = time.monotonic() - self._kept.get(job, self._start)
        waiting = self._states.num_under_way * bytes_per_row * resident.slot.rank
        return since >= seconds and waiting < _MOST_WAITING

    def keep(self, resident: Resident) -> None:
        """Begin to write all that the job needs to go on from here."""
        job = resident.job.id
        self.keep_best(resident.job)
        self._kept[job] = time.monotonic()
        state = Checkpoint(replace(resident.progress), self._bank.state(resident.slot, wait=False))
        write = partial(write_checkpoint, self._directory.checkpoint(job), state)
        self._states.begin(job, write, behind=self._adapters.last(job))

    def keep_best(self, job: Job) -> None:
        """Begin to write the job's best adapter, unless that is on disk."""
        best = self._best.pop(job.id, None)
        if best is not None:
            write = partial(self._write_best, job.id, best, job.hyperparameters)
            self._adapters.begin(job.id, write)

    def settle(self, job: JobId) -> None:
        """Wait until all that was begun for the job is on disk. Raises what went wrong with it."""
        self._states.settle(job)
        self._adapters.settle(job)

    def dismiss(self, job: Job) -> None:
        """It trains no more: its best adapter is on disk when this is done, and nothing of it is on
        its way there. A state that nobody has begun to write is given up."""
        self.keep_best(job)
        self._states.leave_out(job.id)
        self.settle(job.id)

    def give_up(self, job: JobId) -> None:
        """It trains no more, and nobody goes on from its state, nor waits for it: one that nobody
        has begun to write is left out, one that is being written is removed once it is there. Its
        best adapter, if on its way, is on disk when this is done."""
        if not self._states.leave_out(job):
            self._states.begin(job, partial(self._directory.drop_checkpoint, job))
        self._adapters.settle(job)

    def close(self) -> None:
        """Wait for all that was begun."""
        self._states.close()
        self._adapters.close()

    def _write_best(self, job: JobId, best: _Best, hyperparameters: Hyperparameters) -> None:
        folder, bank, (copy, step) = self._directory.adapter(job), self._bank, best
        weights_LN = weights_of(bank, copy)
        write_adapter(folder, bank, weights_LN, hyperparameters, self._base_model, step)


def _is_past_its_best(progress: Progress) -> bool:
    return progress.report is not None and progress.report.val != progress.best_val
