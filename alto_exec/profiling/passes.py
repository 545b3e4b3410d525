"""Times fused training passes and evaluations of one backbone, with their peaks of memory."""

import gc
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import groupby

import torch

from alto_exec.bank import AdapterBank
from alto_exec.data.samples import Sample
from alto_exec.decoder import Decoder
from alto_exec.evaluate import validation_loss
from alto_exec.frozen_model import FrozenModel
from alto_exec.memory import measured_memory_model
from alto_exec.profiling.cases import EvaluationCase, StepCase
from alto_exec.profiling.stopwatch import median_seconds
from alto_exec.profiling.synthetic import equal_jobs, random_samples, residents
from alto_exec.residence import Resident
from alto_exec.step import train_pass
from alto_policy.memory import MemoryModel
from alto_policy.types import Task, TaskId
from alto_runs.profile import EvaluationRow, Machine, ModelShape, StepRow, Trained

__all__ = ["Bench", "MeasuredStep"]

_RANK = 16  # of evaluations
_SEQUENCES = 16  # that jobs draw from


@dataclass(frozen=True, slots=True)
class MeasuredStep:
    """A case with its row; with none where the memory model says that it does not fit."""

    case: StepCase
    row: StepRow | None
    predicted_bytes: int | None  # by the memory model, measured for the case's length


@dataclass(frozen=True, slots=True)
class Bench:
    """One backbone on one device."""

    backbone: FrozenModel
    shape: ModelShape
    machine: Machine
    kernels: str

    def steps(self, cases: Sequence[StepCase]) -> Iterator[MeasuredStep]:
        """The cases that can run, those of one length and kind together."""

        def kind(case: StepCase) -> tuple[bool, int]:
            return case.recompute, case.length

        can_recompute = isinstance(self.backbone, Decoder)
        able = [case for case in cases if can_recompute or not case.recompute]
        for _, alike in groupby(sorted(able, key=kind), key=kind):
            together = tuple(alike)
            memory = self._memory(together)
            for case in sorted(together, key=lambda case: case.tokens):
                yield self._step(case, memory)

    def evaluations(self, cases: Sequence[EvaluationCase]) -> Iterator[EvaluationRow]:
        """Of jobs one after another, as an executor evaluates them."""
        device = self.backbone.device
        for case in cases:
            bank = self._bank()
            jobs = residents(equal_jobs(case.jobs, rank=_RANK, batch_size=1), bank)
            data = random_samples(case.sequences, case.length, self.shape.vocabulary)

            work = partial(self._evaluate, bank, jobs, data)
            yield EvaluationRow(
                machine=self.machine,
                model=self.shape,
                dtype=self._dtype,
                kernels=self.kernels,
                jobs=case.jobs,
                rank=_RANK,
                sequences=case.sequences,
                length=case.length,
                seconds=median_seconds(work, device, repeats=3),
            )

    def _evaluate(
        self, bank: AdapterBank, jobs: Sequence[Resident], data: Sequence[Sample]
    ) -> None:
        for job in jobs:
            validation_loss(self.backbone, bank, data, job.slot)

    def _step(self, case: StepCase, memory: MemoryModel | None) -> MeasuredStep:
        jobs = equal_jobs(case.jobs, rank=case.rank, batch_size=case.batch_size)
        predicted = None if memory is None else memory.bytes(jobs, case.length)
        if memory is not None and predicted is not None and predicted > memory.capacity:
            return MeasuredStep(case, None, predicted)
        device = self.backbone.device
        if isinstance(self.backbone, Decoder):
            self.backbone.recompute = case.recompute
        gc.collect()
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        bank = self._bank()
        here = residents(jobs, bank)
        data = random_samples(_SEQUENCES, case.length, self.shape.vocabulary)
        is_cuda = device.type == "cuda"
        seconds = median_seconds(
            lambda: train_pass(self.backbone, bank, data, here),
            device,
            repeats=5 if is_cuda else 3,
            warm_up=3 if is_cuda else 1,  # compiled, recorded, replayed
        )
        row = StepRow(
            machine=self.machine,
            model=self.shape,
            dtype=self._dtype,
            kernels=self.kernels,
            trained=Trained.LORA,
            recompute=case.recompute,
            jobs=case.jobs,
            rank=case.rank,
            batch_size=case.batch_size,
            length=case.length,
            seconds=seconds,
            peak_bytes=torch.cuda.max_memory_allocated(device) if is_cuda else None,
        )
        return MeasuredStep(case, row, predicted)

    def _memory(self, cases: Sequence[StepCase]) -> MemoryModel | None:
        """As an executor measures it for a task of the largest case; None off the GPU."""
        if self.backbone.device.type != "cuda":
            return None
        largest = max(cases, key=lambda case: case.tokens)
        task = Task(
            id=TaskId("profile"),
            jobs=equal_jobs(largest.jobs, rank=largest.rank, batch_size=largest.batch_size),
            backbone=self.shape.name,
            max_length=largest.length,
        )
        samples = random_samples(_SEQUENCES, largest.length, self.shape.vocabulary)
        model = measured_memory_model(self.backbone, samples, task, largest.recompute)
        # The margin is a run's own, for what is fragmented; here it may be used.
        return replace(model, capacity=int(0.95 * torch.cuda.get_device_properties(0).total_memory))

    def _bank(self) -> AdapterBank:
        return AdapterBank(
            self.backbone.shapes, self.backbone.device, rows=0, dtype=self.backbone.dtype
        )

    @property
    def _dtype(self) -> str:
        return str(self.backbone.dtype).removeprefix("torch.")
