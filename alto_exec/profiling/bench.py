"""Times fused training passes and evaluations of one backbone, with their peaks of memory."""

import gc
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch

from alto_exec.adapters.bank import AdapterBank
from alto_exec.backbones.compiling import compile_passes
from alto_exec.backbones.decoder import Decoder
from alto_exec.data.samples import Sample
from alto_exec.jobs.residence import Resident
from alto_exec.memory.measuring import measured_memory_model
from alto_exec.passes.evaluation import Adapter, pass_limits, validation_losses
from alto_exec.passes.frozen_model import FrozenModel
from alto_exec.passes.training import train_pass
from alto_exec.profiling.cases import EvaluationCase, StepCase
from alto_exec.profiling.stopwatch import median_seconds
from alto_exec.profiling.synthetic import equal_jobs, random_samples, residents
from alto_policy.memory import MemoryModel
from alto_policy.types import Job, Task, TaskId
from alto_runs.profile import EvaluationRow, Machine, ModelShape, StepRow, Trained

__all__ = ["Bench", "MeasuredStep"]

_RANK = 16  # of evaluations
_SEQUENCES = 16  # that jobs draw from
_SHARE = 0.95  # of the card, that may be held


@dataclass(frozen=True, slots=True)
class MeasuredStep:
    """A case with its row; with none where the memory model says that it does not fit."""

    case: StepCase
    row: StepRow | None
    predicted_bytes: int | None  # by the memory model
    held_bytes: int | None  # at its peak, an evaluation included

    @property
    def over(self) -> float | None:
        """By how much of what was held more was predicted."""
        if self.predicted_bytes is None or self.held_bytes is None:
            return None
        return self.predicted_bytes / self.held_bytes - 1


@dataclass(frozen=True, slots=True)
class Bench:
    """One backbone on one device."""

    backbone: FrozenModel
    shape: ModelShape
    machine: Machine
    kernels: str

    def steps(self, cases: Sequence[StepCase]) -> Iterator[MeasuredStep]:
        """The cases that can run; first all that keep their activations."""
        self._compile(cases)
        kinds = [False, True] if isinstance(self.backbone, Decoder) else [False]
        for recompute in kinds:
            alike = [case for case in cases if case.recompute is recompute]
            memory = self._memory(alike) if alike else None
            for case in sorted(alike, key=lambda case: (case.length, case.tokens)):
                yield self._step(case, memory)

    def evaluations(self, cases: Sequence[EvaluationCase]) -> Iterator[EvaluationRow]:
        """Of jobs together, as an executor evaluates them: replayed where that pays, also if the
        last training pass computed activations again."""
        if isinstance(self.backbone, Decoder):
            self.backbone.activations.recompute = False
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
                seconds=median_seconds(work, device, repeats=3, warm_up=3),
            )

    def _evaluate(
        self, bank: AdapterBank, jobs: Sequence[Resident], data: Sequence[Sample]
    ) -> None:
        validation_losses(self.backbone, bank, data, [Adapter.of(job) for job in jobs])

    def _step(self, case: StepCase, memory: MemoryModel | None) -> MeasuredStep:
        jobs = equal_jobs(case.jobs, rank=case.rank, batch_size=case.batch_size)
        predicted = None if memory is None else memory.bytes(jobs, case.length)
        if memory is not None and not memory.fits(jobs, case.length):
            return MeasuredStep(case, None, predicted, None)
        if isinstance(self.backbone, Decoder):
            self.backbone.activations.recompute = case.recompute
        if self.backbone.device.type == "cuda":
            gc.collect()  # garbage counts there; a look for it takes a third of a second
            torch.cuda.reset_peak_memory_stats(self.backbone.device)
        bank = self._bank()
        here = residents(jobs, bank)
        data = random_samples(_SEQUENCES, case.length, self.shape.vocabulary)
        seconds = self._seconds(case, bank, here, data)
        trained = _peak_bytes(self.backbone.device)
        if trained is not None:  # what an executor holds, whose passes are as full as they may be
            count = max(1, pass_limits(self.backbone)[0] // case.length)
            many = random_samples(count, case.length, self.shape.vocabulary)
            self._evaluate(bank, here[:1], many)
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
            peak_bytes=trained,
        )
        return MeasuredStep(case, row, predicted, _peak_bytes(self.backbone.device))

    def _seconds(
        self, case: StepCase, bank: AdapterBank, here: Sequence[Resident], data: Sequence[Sample]
    ) -> float:
        is_recorded = (
            isinstance(self.backbone, Decoder) and case.tokens <= self.backbone.most_recorded_tokens
        )
        return median_seconds(
            lambda: train_pass(self.backbone, bank, data, here),
            self.backbone.device,
            repeats=5 if self.backbone.device.type == "cuda" else 3,
            warm_up=3 if is_recorded else 1,  # compiled, recorded, replayed
        )

    def _compile(self, cases: Sequence[StepCase]) -> None:
        """As an executor does before its first pass."""
        if not isinstance(self.backbone, Decoder) or not self.backbone.runs_in_kernels:
            return
        for rank in sorted({case.rank for case in cases}):
            most = max(case.jobs for case in cases if case.rank == rank)
            jobs = equal_jobs(most, rank=rank, batch_size=1)
            compile_passes(self.backbone, self._bank(), self._task(jobs, 1))

    def _memory(self, cases: Sequence[StepCase]) -> MemoryModel | None:
        """As an executor measures it for a task of so many tokens whose samples are as short as any
        here; None off the GPU."""
        if self.backbone.device.type != "cuda":
            return None
        most, length = max(case.tokens for case in cases), min(case.length for case in cases)
        task = self._task(equal_jobs(1, rank=_RANK, batch_size=-(-most // length)), length)
        samples = random_samples(_SEQUENCES, length, self.shape.vocabulary)
        model = measured_memory_model(
            self.backbone, self._bank(), samples, task, cases[0].recompute
        )
        # The margin is a run's own, for what is fragmented; here most of it may be used.
        total = torch.cuda.get_device_properties(self.backbone.device).total_memory
        return replace(model, capacity=int(_SHARE * total))

    def _task(self, jobs: tuple[Job, ...], length: int) -> Task:
        return Task(id=TaskId("profile"), jobs=jobs, backbone=self.shape.name, max_length=length)

    def _bank(self) -> AdapterBank:
        return AdapterBank(
            self.backbone.shapes, self.backbone.device, rows=0, dtype=self.backbone.dtype
        )

    @property
    def _dtype(self) -> str:
        return str(self.backbone.dtype).removeprefix("torch.")


def _peak_bytes(device: torch.device) -> int | None:
    """Most bytes held since the last reset; None off the GPU."""
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None
