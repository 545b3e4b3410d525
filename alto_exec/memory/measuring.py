"""How much a device can hold, measured by passes of rising size."""

import gc
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from alto_exec.adapters.bank import AdapterBank
from alto_exec.backbones.decoder import Decoder
from alto_exec.data.samples import Example, Sample
from alto_exec.memory.counting import exchanged_bytes, memory_model
from alto_exec.memory.probing import PROBE_RANK, Probe, Prober
from alto_exec.parallel.sharded_decoder import ShardedDecoder
from alto_exec.passes.frozen_model import FrozenModel
from alto_kernels.linear_cross_entropy import chunk_rows
from alto_policy.executors.packing import by_batch_size
from alto_policy.memory import Load, Logits, MeasuredPasses, MemoryModel, joined, saving_pays
from alto_policy.types import Task

__all__ = ["measured_memory_model"]

_SAFETY = 1.02  # of what a pass was measured to hold


def measured_memory_model(
    backbone: FrozenModel,
    bank: AdapterBank,
    examples: Sequence[Example],
    task: Task,
    recompute: bool | None = None,
    capacity: int | None = None,
) -> MemoryModel:
    """On a CUDA device, from passes over the longest examples, each twice as large as the last.
    The bank is empty, and so it is afterwards.

    Where `recompute` leaves it open, passes that keep their activations are measured, and those
    that compute them again if not all jobs of the task fit so and that may be faster. Ranks that
    share a backbone measure the same at the same time, and choose alike. `capacity`: as for
    `memory_model`.
    """

    def measured(*, recompute: bool) -> _Measured:
        counted = memory_model(backbone, bank, capacity)
        return _measured(backbone, bank, examples, task, counted, recompute=recompute)

    plain = measured(recompute=recompute is True)
    if recompute is not None or not isinstance(backbone, Decoder | ShardedDecoder):
        return plain.model
    found = plain.model
    if _is_any(backbone, plain.may_be_outrun(task)):
        again = measured(recompute=True)
        speeds = [one.tokens_per_second() for one in (plain, again)]

        def tokens_per_second(model: MemoryModel) -> float:
            return speeds[model is not plain.model]

        if _is_any(backbone, saving_pays(plain.model, again.model, task, tokens_per_second)):
            found = joined(plain.model, again.model)
    backbone.activations.recompute = False
    return found


@dataclass(frozen=True, slots=True)
class _Measured:
    model: MemoryModel
    probes: tuple[Probe, ...]
    prober: Prober

    def may_be_outrun(self, task: Task) -> bool:
        """Whether jobs that have no room beside one another may be worth computing activations
        again. Where each has room by itself, and those that have it together take the device longer
        than their launches take the host, more of them save less than that costs."""
        if self.model.fits(task.jobs, task.max_length):
            return False
        has_each = self.model.num_fitting(task.jobs, task.max_length) == len(task.jobs)
        fills = 0 < self.prober.recorded_tokens <= _fitting(self.model, task).tokens
        return not (has_each and fills)

    def tokens_per_second(self) -> float:
        """Of the largest pass that was measured."""
        if not self.probes:
            return 0.0
        assert self.model.passes is not None
        self.prober.backbone.activations.recompute = self.model.passes.recompute
        tokens = self.probes[-1].tokens
        seconds = self.prober.seconds(tokens)
        self.prober.bank.give_back(0)
        return tokens / seconds


def _fitting(model: MemoryModel, task: Task) -> Load:
    """Of as many jobs side by side as fit, in the order of packing."""
    load = Load()
    for job in by_batch_size(task.jobs):
        together = load.plus(job, task.max_length)
        if model.held(together) <= model.capacity:
            load = together
    return load


def _most_dropout(task: Task) -> float:
    """Of any job: with dropout the last layer has all rows, else those that predict targets."""
    return max(job.hyperparameters.dropout for job in task.jobs)


def _measured(
    backbone: FrozenModel,
    bank: AdapterBank,
    examples: Sequence[Example],
    task: Task,
    counted: MemoryModel,
    *,
    recompute: bool,
) -> _Measured:
    worst = _worst(examples, task.max_length)
    per_row_rank, recorded_tokens, logits = 0, 0, None
    if isinstance(backbone, Decoder | ShardedDecoder):
        backbone.activations.recompute = recompute
        recorded_tokens = backbone.most_recorded_tokens
        kept_layers = 1 if recompute else backbone.num_layers
        per_layer = len(bank.shapes) // backbone.num_layers
        per_row_rank = backbone.dtype.itemsize * per_layer * kept_layers
        logits = _logits(backbone, worst)
    gc.collect()
    fixed = max(torch.cuda.memory_allocated(backbone.device), backbone.num_bytes)
    fixed += exchanged_bytes(backbone)
    most = task.max_length * sum(job.hyperparameters.batch_size for job in task.jobs)
    prober = Prober(backbone, bank, worst, fixed, recorded_tokens, _most_dropout(task))
    probes = tuple(prober.sizes(most=most, capacity=counted.capacity))
    passes = MeasuredPasses(
        peaks=(),
        per_row_rank=per_row_rank,
        per_rank_moving=bank.value_RC.element_size() * bank.num_columns,
        evaluation=int(_SAFETY * prober.evaluation_bytes()) if probes else 0,
        recorded_tokens=recorded_tokens,
        recompute=recompute,
        logits=logits,
    )
    bank.give_back(0)
    passes = replace(passes, peaks=tuple(_peak(probe, passes) for probe in probes))
    per_token = _slope(passes.peaks, counted.per_token)
    model = replace(counted, fixed=fixed, per_token=per_token, per_rank_token=0, passes=passes)
    return _Measured(model, probes, prober)


def _logits(backbone: Decoder | ShardedDecoder, worst: Sample) -> Logits:
    return Logits(
        per_target=backbone.dtype.itemsize * backbone.vocabulary_size,
        most=chunk_rows(backbone.vocabulary_size),
        share=worst.num_targets / len(worst.tokens),
    )


def _is_any(backbone: Decoder | ShardedDecoder, fact: bool) -> bool:
    """Whether it is so here, or on another rank."""
    return backbone.is_any(fact) if isinstance(backbone, ShardedDecoder) else fact


def _peak(probe: Probe, passes: MeasuredPasses) -> tuple[int, int]:
    """Rows, and bytes without what the form counts by itself: what rows keep for their adapters,
    and logits."""
    held = int(_SAFETY * probe.bytes) - passes.per_row_rank * PROBE_RANK * probe.tokens
    if passes.logits is None:
        return probe.tokens, held
    is_recorded = probe.tokens <= passes.recorded_tokens
    held -= passes.logits.bytes(probe.tokens, is_recorded=is_recorded)
    return passes.rows(probe.tokens), held


def _worst(examples: Sequence[Example], length: int) -> Sample:
    """As long as the longest example, with as many targets as any has."""
    longest = max(examples, key=lambda example: example.num_tokens).samples[0]
    tokens = (longest.tokens * -(-length // len(longest.tokens)))[:length]
    targets = max(
        sum(sample.num_targets for sample in e.samples) * e.most_tokens // e.num_tokens
        for e in examples
    )
    return Sample(tokens, tuple(place >= length - targets for place in range(length)))


def _slope(peaks: Sequence[tuple[int, int]], expected: int) -> int:
    """Bytes of one row more than the largest pass has."""
    if len(peaks) < 2 or peaks[-2][0] == peaks[-1][0]:
        return expected
    (few, less), (many, more) = peaks[-2:]
    return max(1, (more - less) // (many - few))
