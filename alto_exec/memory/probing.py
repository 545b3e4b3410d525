"""Training passes of rising size, for what they hold, and for how long they take."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from alto_exec.adapters.bank import AdapterBank, Slot, random_state
from alto_exec.data.samples import Sample
from alto_exec.jobs.residence import Progress, Resident
from alto_exec.passes.evaluation import pass_limits, validation_loss
from alto_exec.passes.frozen_model import FrozenModel
from alto_exec.passes.step import train_pass
from alto_policy.memory import SPARE, recorded_rows
from alto_policy.types import Hyperparameters, Job, JobId

__all__ = [
    "PROBE_RANK",
    "Probe",
    "evaluation_bytes",
    "pass_seconds",
    "probe_passes",
]

PROBE_RANK = 16
_JOBS = 8  # at most, side by side in a probe; then their batches grow
# Of a size that is timed: the first asks for memory, the second may be recorded, the last is timed.
_TIMED, _LAUNCHED_TIMED = 3, 2


@dataclass(frozen=True, slots=True)
class Probe:
    tokens: int
    bytes: int  # most held at a time, beside what was there before and the adapters' own state


def probe_passes(
    backbone: FrozenModel,
    bank: AdapterBank,
    sample: Sample,
    *,
    most: int,
    fixed: int,
    capacity: int,
    recorded_tokens: int,
    dropout: float,
) -> Iterator[Probe]:
    """Passes over 1, 2, 4, ... times the sample until one holds `most` tokens, or until the next
    would not fit into `capacity` bytes. `fixed` bytes are held beside them and the bank. Passes of
    up to `recorded_tokens` are as long as recordings of them: the first is one with as many tokens
    as the shortest of those has room for. With `dropout` passes hold more.

    A launched pass holds the same each time, so one of each size is enough. One that is recorded
    holds up to 1.5 % more (135M, H200), so those are passed a second time.
    """
    slots: list[Slot] = []
    count, last = _first_count(len(sample.tokens), most, recorded_tokens), Probe(0, 0)
    while True:
        while len(slots) < min(count, _JOBS):
            slots.append(bank.join(random_state(bank, PROBE_RANK)))
        residents = [_resident(slot, count // len(slots), dropout) for slot in slots]
        passes = 2 if count * len(sample.tokens) <= recorded_tokens else 1
        found = _probe(backbone, bank, sample, residents, fixed, passes)
        if found is not None:
            yield found
        if found is None or found.tokens >= most:
            break
        grows = (found.bytes - last.bytes) / (found.tokens - last.tokens)
        kept = 2 * bank.num_rows * bank.bytes_per_rank
        if fixed + kept + found.bytes + grows * found.tokens > capacity:
            break
        count, last = 2 * count, found
    for slot in slots:
        bank.leave(slot)


def pass_seconds(
    backbone: FrozenModel,
    bank: AdapterBank,
    sample: Sample,
    tokens: int,
    *,
    recorded_tokens: int,
    dropout: float,
) -> float:
    """Of a pass over so many tokens, one that `probe_passes` has found room for."""
    count = tokens // len(sample.tokens)
    slots = [bank.join(random_state(bank, PROBE_RANK)) for _ in range(min(count, _JOBS))]
    residents = [_resident(slot, count // len(slots), dropout) for slot in slots]
    seconds = 0.0
    for _ in range(_TIMED if tokens <= recorded_tokens else _LAUNCHED_TIMED):
        start = time.perf_counter()
        train_pass(backbone, bank, [sample], residents)
        torch.cuda.synchronize()
        seconds = time.perf_counter() - start
    for slot in slots:
        bank.leave(slot)
    return seconds


def evaluation_bytes(backbone: FrozenModel, bank: AdapterBank, sample: Sample, fixed: int) -> int:
    """Most that an evaluation holds at a time beside `fixed` bytes and the bank."""
    slot = bank.join(random_state(bank, PROBE_RANK))
    max_tokens, _ = pass_limits(backbone)
    samples = [sample] * max(1, max_tokens // len(sample.tokens))
    torch.cuda.reset_peak_memory_stats()
    validation_loss(backbone, bank, samples, slot)
    bank.leave(slot)
    return _peak_beside(bank, fixed)


def _probe(
    backbone: FrozenModel,
    bank: AdapterBank,
    sample: Sample,
    residents: Sequence[Resident],
    fixed: int,
    passes: int,
) -> Probe | None:
    """None if memory ran out."""
    tokens = 0
    torch.cuda.reset_peak_memory_stats()
    try:
        for _ in range(passes):
            tokens = train_pass(backbone, bank, [sample], residents)
            torch.cuda.synchronize()
    except torch.OutOfMemoryError:
        torch.cuda.empty_cache()
        return None
    return Probe(tokens, _peak_beside(bank, fixed))


def _first_count(length: int, most: int, recorded_tokens: int) -> int:
    """Fewer samples compute as many rows where passes are recorded, and fill them less."""
    count = 1
    least = recorded_rows(length, SPARE)
    while (
        2 * count * length <= min(most, recorded_tokens)
        and recorded_rows(2 * count * length, SPARE) == least
    ):
        count *= 2
    return count


def _peak_beside(bank: AdapterBank, fixed: int) -> int:
    """What libraries keep for good counts each time, whichever pass asked for it first."""
    return torch.cuda.max_memory_allocated() - fixed - bank.num_rows * bank.bytes_per_rank


def _resident(slot: Slot, batch_size: int, dropout: float) -> Resident:
    h = Hyperparameters(rank=slot.rank, learning_rate=0.0, batch_size=batch_size, dropout=dropout)
    return Resident(Job(id=JobId("probe"), hyperparameters=h, steps=9, reports=1), slot, Progress())
