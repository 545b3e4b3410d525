"""Seconds and bytes of any set of jobs on a GPU, from the measured rows of a profile."""

import math
from collections.abc import Iterable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from enum import StrEnum
from statistics import fmean, median

from alto_policy.memory import MemoryModel
from alto_policy.types import Job, Task
from alto_runs.costs.gpus import DataSheet, sheet_of
from alto_runs.costs.shapes import KNOWN_SHAPES, shape_of
from alto_runs.costs.storage import PLAIN, Storage
from alto_runs.costs.surrogate import Estimate, Surrogate, fit_surrogate
from alto_runs.costs.work import (
    BYTE_TERMS,
    OWN_KERNELS,
    SECOND_TERMS,
    Ceilings,
    Crew,
    PassWork,
    byte_terms,
    crew_of,
    evaluation_seconds,
    is_recorded,
    second_terms,
    work_of,
)
from alto_runs.errors import UserError
from alto_runs.profile import CopyRow, EvaluationRow, GemmRow, ModelShape, Row, StepRow

__all__ = [
    "NOT_MEASURED",
    "UNTOLD_CAPACITY",
    "Basis",
    "Prediction",
    "StepProfile",
    "weakest",
    "work_of_row",
]

_PREFERRED = ("alto-triton", "frozen-liger", "frozen-compiled", "frozen-transformers")
_REACH = (1.5, 2.5, 2.0, 1.5, 0.7, 0.3)  # doublings over which a residual fades: see `_place`
_SCALING_SPREAD = 0.15  # of carrying a measurement over to another card by its data sheet
_FROZEN_SPREAD = 0.15  # of adding adapters to rows of the frozen backbone
UNTOLD_CAPACITY = 1 << 62  # bytes, of a machine without a data sheet
_MARGIN = 0.05  # of a GPU's memory that stays free
_GEMM_SHARE, _COPY_SHARE = 0.73, 0.90  # of the data sheet, as measured on an H100


class Basis(StrEnum):
    """How far an answer stands from what was measured."""

    MEASURED = "measured"  # between measurements of this model
    MODELLED = "modelled"  # outside of them, by the physics fitted to them
    ESTIMATED = "estimated"  # carried over from another card, or from the frozen backbone


NOT_MEASURED = (
    "times are estimated, not measured: carried over from another card by data sheets, or of a "
    "backbone split over GPUs"
)


def weakest(bases: Iterable[Basis]) -> Basis:
    """What can be said of all of them."""
    return max(bases, key=list(Basis).index, default=Basis.MEASURED)


@dataclass(frozen=True, slots=True)
class Prediction:
    value: float  # seconds or bytes
    spread: float  # standard deviation of its logarithm: 0.1 is about 10 %
    basis: Basis


class StepProfile:
    """The measured step times of one kind of kernels, for one kind of GPU.

    Serves a simulator as its truth, and a policy as its estimate; give them different objects, of
    different rows, to see what a wrong profile does. Raises UserError for an unknown GPU, model or
    kind of kernels.
    """

    def __init__(
        self,
        rows: Iterable[Row],
        *,
        gpu: str | None = None,
        kernels: str | None = None,
        recompute: bool = False,
        validation_sequences: int = 64,
        shapes: Mapping[str, ModelShape] | None = None,
    ) -> None:
        rows = tuple(rows)
        self.recompute = recompute
        self.storage = PLAIN
        self.validation_sequences = validation_sequences
        self._shapes = (*(shapes or {}).values(), *KNOWN_SHAPES)
        steps = _of_gpu([row for row in rows if isinstance(row, StepRow)], gpu)
        self.gpu = gpu or steps[0].machine.gpu
        self.kernels = _chosen(kernels, steps)
        self._steps = [row for row in steps if row.kernels == self.kernels]
        self._own, self.ceilings = _ceilings(rows, steps[0].machine.gpu, self.gpu)
        self._is_scaled = not _is_same(steps[0].machine.gpu, self.gpu)
        self._has_adapters = any(row.rank for row in self._steps)
        works = [work_of_row(row) for row in self._steps]
        self._seconds = fit_surrogate(
            SECOND_TERMS,
            [second_terms(work, self._own) for work in works],
            [_place(work) for work in works],
            [row.seconds for row in self._steps],
        )
        self.factors = self._seconds.factors  # of SECOND_TERMS, at the ceilings
        self._bytes = _fit_bytes(self._steps)
        self._evaluation = _evaluation_factor(rows, self.kernels, self.factors, self._own)
        self._passes: dict[tuple[str, int, Crew], float] = {}
        self._evaluations: dict[tuple[str, int, int, Crew], float] = {}
        self._shape_of: dict[str, ModelShape] = {}

    def kept(self, storage: Storage, *, recompute: bool) -> "StepProfile":
        """The same measurements for executors that keep weights, states and activations so."""
        other = copy(self)
        other.storage, other.recompute, other._passes, other._evaluations = (
            storage,
            recompute,
            {},
            {},
        )
        return other

    def shape_of(self, task: Task) -> ModelShape:
        if task.backbone not in self._shape_of:
            self._shape_of[task.backbone] = shape_of(task.backbone, self._shapes)
        return self._shape_of[task.backbone]

    def work(self, jobs: Iterable[Job], task: Task) -> PassWork:
        return self.work_of_crew(crew_of(jobs), task)

    def seconds(self, work: PassWork) -> Prediction:
        """Of one fused training pass, with the optimizers' step."""
        found = self._seconds.estimate(second_terms(work, self.ceilings), _place(work))
        return self._labelled(found, work, self._steps, is_scaled=self._is_scaled)

    def bytes(self, work: PassWork) -> Prediction:
        """Most bytes held in the pass; the same on every card."""
        found = self._bytes.estimate(byte_terms(work), _place(work))
        measured = [row for row in self._steps if row.peak_bytes is not None]
        return self._labelled(found, work, measured, is_scaled=False)

    def pass_seconds(self, jobs: Iterable[Job], task: Task) -> float:
        """One fused pass of the jobs, each with one batch of sequences of the mean length."""
        crew = crew_of(jobs)
        key = (task.backbone, _length(task), crew)
        if key not in self._passes:
            work = self.work_of_crew(crew, task)
            terms = second_terms(work, self.ceilings)
            self._passes[key] = self._seconds.value(terms, _place(work))
        return self._passes[key]

    def evaluation_seconds(self, jobs: Sequence[Job], task: Task) -> float:
        """Evaluation of the jobs on the validation sequences, in passes that they fill together."""
        if not jobs:
            return 0.0
        crew = crew_of(jobs)
        length, of_one = _length(task), self.validated_sequences(task)
        key = (task.backbone, length, of_one, crew)
        if key not in self._evaluations:
            sequences, factors = of_one * len(jobs), self.factors
            found = evaluation_seconds(
                self.work_of_crew(crew, task), sequences, factors, self.ceilings
            )
            self._evaluations[key] = self._evaluation * found
        return self._evaluations[key]

    def gang(self, task: Task) -> None:
        """Each GPU has the whole backbone, and trains for itself."""

    def validated_sequences(self, task: Task) -> int:
        if task.tokens is None:
            return self.validation_sequences
        return max(1, round(task.tokens.validation / _length(task)))

    def memory_model(self, task: Task, max_jobs: int | None = None) -> MemoryModel:
        """The linear form by which jobs are admitted, from the fitted terms."""
        shape, factors = self.shape_of(task), self._bytes.factors

        def held(tokens: int, rank: int) -> float:
            work = PassWork(
                shape, 1, tokens, tokens, rank, rank * tokens, self.recompute, storage=self.storage
            )
            return math.fsum(f * t for f, t in zip(factors, byte_terms(work), strict=True))

        fixed, per_rank = held(0, 0), held(0, 1) - held(0, 0)
        per_token = held(1, 0) - fixed
        return MemoryModel(
            capacity=_capacity_of(self.gpu),
            fixed=math.ceil(fixed),
            per_rank=math.ceil(per_rank),
            per_token=math.ceil(per_token),
            per_rank_token=math.ceil(held(1, 1) - fixed - per_rank - per_token),
            max_jobs=max_jobs,
        )

    def work_of_crew(self, crew: Crew, task: Task) -> PassWork:
        return work_of(
            crew,
            self.shape_of(task),
            _length(task),
            kernels=self.kernels,
            recompute=self.recompute,
            storage=self.storage,
        )

    def _labelled(
        self, found: Estimate, work: PassWork, rows: Sequence[StepRow], *, is_scaled: bool
    ) -> Prediction:
        is_added = work.ranks > 0 and not self._has_adapters
        extra = (_SCALING_SPREAD if is_scaled else 0.0, _FROZEN_SPREAD if is_added else 0.0)
        spread = math.hypot(found.spread, *extra)
        if is_scaled or is_added:
            return Prediction(found.value, spread, Basis.ESTIMATED)
        is_inside = _is_inside(work, [work_of_row(row) for row in rows])
        return Prediction(found.value, spread, Basis.MEASURED if is_inside else Basis.MODELLED)


def _length(task: Task) -> int:
    return max(1, round(task.mean_length))


def work_of_row(row: StepRow) -> PassWork:
    return PassWork(
        shape=row.model,
        jobs=row.jobs,
        tokens=row.tokens,
        length=row.length,
        ranks=row.rank * row.jobs,
        rank_tokens=row.rank * row.tokens,
        recompute=row.recompute,
        weight_bytes=4 if row.dtype == "float32" else 2,
        is_recorded=is_recorded(row.kernels, row.model, row.tokens, recompute=row.recompute),
        is_tiled=row.kernels == OWN_KERNELS,
    )


def _evaluation_factor(
    rows: Iterable[Row], kernels: str, factors: tuple[float, ...], ceilings: Ceilings
) -> float:
    """Measured evaluations over what the factors of training say of them; 1 if there are none."""
    logs = []
    for row in rows:
        if isinstance(row, EvaluationRow) and row.kernels == kernels:
            tokens = row.sequences * row.length
            ranks = (row.rank, row.rank * tokens)
            work = PassWork(row.model, 1, tokens, row.length, *ranks)
            expected = evaluation_seconds(work, row.jobs * row.sequences, factors, ceilings)
            logs.append(math.log(row.seconds / expected))
    return math.exp(fmean(logs)) if logs else 1.0


def _fit_bytes(steps: Sequence[StepRow]) -> Surrogate:
    works = [(work_of_row(row), row.peak_bytes) for row in steps if row.peak_bytes is not None]
    return fit_surrogate(
        BYTE_TERMS,
        [byte_terms(work) for work, _ in works],
        [_place(work) for work, _ in works],
        [peak for _, peak in works],
    )


def _place(work: PassWork) -> tuple[float, ...]:
    """Where the pass stands among others, in units over which a residual fades."""
    sizes = (
        work.tokens,
        work.jobs,
        1 + work.mean_rank,
        work.length,
        work.shape.parameters,
        2 if work.recompute else 1,
    )
    return tuple(math.log2(size) / reach for size, reach in zip(sizes, _REACH, strict=True))


def _is_inside(work: PassWork, measured: Sequence[PassWork]) -> bool:
    """Whether the measurements of the same model reach around the pass in every size."""
    alike = [
        each
        for each in measured
        if each.shape == work.shape
        and each.recompute == work.recompute
        and each.storage == work.storage
        and (each.ranks > 0) == (work.ranks > 0)
    ]

    def spans(size: float, sizes: Iterable[float]) -> bool:
        known = tuple(sizes)
        return min(known) <= size <= max(known)

    return bool(alike) and (
        spans(work.tokens, (each.tokens for each in alike))
        and spans(work.jobs, (each.jobs for each in alike))
        and spans(work.mean_rank, (each.mean_rank for each in alike))
        and spans(work.length, (each.length for each in alike))
    )


def _is_same(measured: str, gpu: str) -> bool:
    """Two names of one kind of GPU; a machine without a data sheet is only itself."""
    if measured == gpu:
        return True
    try:
        return sheet_of(measured) == sheet_of(gpu)
    except UserError:
        return False


def _capacity_of(gpu: str) -> int:
    try:
        return int(sheet_of(gpu).memory * (1 - _MARGIN))
    except UserError:
        return UNTOLD_CAPACITY


def _of_gpu(steps: Sequence[StepRow], gpu: str | None) -> list[StepRow]:
    """The rows of that GPU, else those of the GPU that was measured first."""
    if not steps:
        raise UserError("profile: no StepRow in it, expected at least one")
    wanted = gpu or steps[0].machine.gpu
    own = [row for row in steps if _is_same(row.machine.gpu, wanted)]
    return own or [row for row in steps if _is_same(row.machine.gpu, steps[0].machine.gpu)]


def _chosen(kernels: str | None, steps: Sequence[StepRow]) -> str:
    known = list(dict.fromkeys(row.kernels for row in steps))
    if kernels is None:
        return next((name for name in _PREFERRED if name in known), known[0])
    if kernels not in known:
        raise UserError(f"kernels: value {kernels!r}: expected one of {', '.join(known)}")
    return kernels


def _ceilings(rows: Sequence[Row], measured: str, gpu: str) -> tuple[Ceilings, Ceilings]:
    """Of the card that was measured, and of the card that is asked for."""
    own = [row for row in rows if _is_same(row.machine.gpu, measured)]
    flops = [row.flops_per_second for row in own if isinstance(row, GemmRow)]
    copies = [row.bytes_per_second for row in own if isinstance(row, CopyRow)]
    if flops and copies:
        ceilings = Ceilings(median(flops), max(copies))
    else:
        ceilings = _reachable(sheet_of(measured))
    if _is_same(measured, gpu):
        return ceilings, ceilings
    here, there = sheet_of(measured), sheet_of(gpu)
    scaled = Ceilings(
        ceilings.flops_per_second * there.flops_per_second / here.flops_per_second,
        ceilings.bytes_per_second * there.bytes_per_second / here.bytes_per_second,
    )
    return ceilings, scaled


def _reachable(sheet: DataSheet) -> Ceilings:
    return Ceilings(_GEMM_SHARE * sheet.flops_per_second, _COPY_SHARE * sheet.bytes_per_second)
