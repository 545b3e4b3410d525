"""What an executor's jobs have come to, on a disk or in a store: beside training, and in the order
that counts."""

import logging
import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from alto_exec.adapters.bank import AdapterBank
from alto_exec.adapters.file_order import begin_copy, in_file_order
from alto_exec.adapters.peft_format import BaseModel, write_adapter
from alto_exec.jobs.checkpoint import Checkpoint, read_checkpoint, write_checkpoint
from alto_exec.jobs.residence import Progress, Resident
from alto_policy.types import Hyperparameters, Job, JobId
from alto_runs.files.artifacts import BarredError
from alto_runs.files.directory import RunDirectory

__all__ = ["Keeper"]

log = logging.getLogger(__name__)

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
        self._adapter_pool = ThreadPoolExecutor(self._num_threads, "adapters")
        self._state_pool = ThreadPoolExecutor(_STATE_THREADS, "states")
        self._adapters: dict[JobId, Future[None]] = {}  # being written, the last of each job
        self._states: dict[JobId, Future[None]] = {}
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
            elif _is_past_its_best(resident.progress):
                writing = sum(not each.done() for each in self._adapters.values())
                if writing < self._num_threads:
                    self.keep_best(resident.job)

    def secure(self, jobs: Sequence[Job]) -> None:
        """Their best adapters are on disk when this is done."""
        for job in jobs:
            self.keep_best(job)
        for job in jobs:
            _await(self._adapters, job.id)

    def _wants(self, resident: Resident) -> bool:
        """Whether a checkpoint is worth what it costs now."""
        job = resident.job.id
        last = self._states.get(job)
        is_local = self._directory.stored_at is None
        if (self.is_durable or not is_local) and last is not None and not last.done():
            return False
        is_copied = self.is_durable and self._bank.value_RC.device.type == "cuda"
        share = _SHARE_BESIDE if is_copied else _SHARE
        bytes_per_row = self._bank.memory.state_bytes_per_row
        seconds = bytes_per_row * self._bank.num_rows / _WRITTEN_PER_SECOND / share
        since = time.monotonic() - self._kept.get(job, self._start)
        writing = sum(not each.done() for each in self._states.values())
        is_free = writing * bytes_per_row * resident.slot.rank < _MOST_WAITING
        return since >= seconds and is_free

    def keep(self, resident: Resident) -> None:
        """Begin to write all that the job needs to go on from here."""
        job = resident.job.id
        self.keep_best(resident.job)
        self._kept[job] = time.monotonic()
        state = Checkpoint(replace(resident.progress), self._bank.state(resident.slot, wait=False))
        before = (self._adapters.get(job), self._states.get(job))
        written = partial(write_checkpoint, self._directory.checkpoint(job), state)
        self._states[job] = self._state_pool.submit(self._writing(job, before, written))

    def keep_best(self, job: Job) -> None:
        """Begin to write the job's best adapter, unless that is on disk."""
        best = self._best.pop(job.id, None)
        if best is not None:
            before = (self._adapters.get(job.id),)
            written = partial(self._write_best, job.id, best, job.hyperparameters)
            writing = self._writing(job.id, before, written)
            self._adapters[job.id] = self._adapter_pool.submit(writing)

    def settle(self, job: JobId) -> None:
        """Wait until all that was begun for the job is on disk. Raises what went wrong with it."""
        _await(self._states, job)
        _await(self._adapters, job)

    def dismiss(self, job: Job) -> None:
        """It trains no more: its best adapter is on disk when this is done, and nothing of it is on
        its way there. A state that nobody has begun to write is given up."""
        self.keep_best(job)
        state = self._states.get(job.id)
        if state is not None and state.cancel():
            del self._states[job.id]
        self.settle(job.id)

    def close(self) -> None:
        """Wait for all that was begun."""
        for job in {*self._states, *self._adapters}:
            self.settle(job)
        self._adapter_pool.shutdown()
        self._state_pool.shutdown()

    def _writing(
        self, job: JobId, before: Sequence[Future[None] | None], write: Callable[[], None]
    ) -> Callable[[], None]:
        """Behind what was begun `before`, once the device has come so far."""
        copied = _reached()

        def run() -> None:
            for each in before:
                if each is not None:
                    each.result()
            copied()
            try:
                write()
            except BarredError:
                log.warning("%s: its task has another executor, and nothing is written here", job)

        return run

    def _write_best(self, job: JobId, best: _Best, hyperparameters: Hyperparameters) -> None:
        folder, bank, (copy, step) = self._directory.adapter(job), self._bank, best
        on_gpu = bank.value_RC.device.type == "cuda"
        weights_LN = copy.numpy() if on_gpu else in_file_order(bank, copy)
        write_adapter(folder, bank, weights_LN, hyperparameters, self._base_model, step)


def _is_past_its_best(progress: Progress) -> bool:
    return progress.report is not None and progress.report.val != progress.best_val


def _await(writing: dict[JobId, Future[None]], job: JobId) -> None:
    if (last := writing.pop(job, None)) is not None:
        last.result()


def _reached() -> Callable[[], None]:
    """Waits until the device has come to where it is asked to go now."""
    if not torch.cuda.is_available():
        return lambda: None
    event = torch.cuda.Event()
    event.record()
    return event.synchronize
