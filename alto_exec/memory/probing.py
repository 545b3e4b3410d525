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
from alto_exec.passes.training import train_pass
from alto_policy.memory import SPARE, recorded_rows
from alto_policy.types import Hyperparameters, Job, JobId

__all__ = ["PROBE_RANK", "Probe", "Prober"]

PROBE_RANK = 16
_JOBS = 8  # at most, side by side in a probe; then their batches grow
# Of a size that is timed: the first asks for memory, the second may be recorded, the last is timed.
_TIMED, _LAUNCHED_TIMED = 3, 2


@dataclass(frozen=True, slots=True)
class Probe:
    tokens: int
    bytes: int  # most held at a time, beside what was there before and the adapters' own state


@dataclass(frozen=True, slots=True)
class Prober:
    """Passes over one sample, as often as there is room for; the bank is empty before and after."""

    backbone: FrozenModel
    bank: AdapterBank
    sample: Sample
    fixed: int  # bytes that are held beside the bank, whatever is passed
    recorded_tokens: int  # passes of up to so many are as long as recordings of them
    dropout: float  # of the jobs; with it passes hold more

    def sizes(self, *, most: int, capacity: int) -> Iterator[Probe]:
        """Passes over 1, 2, 4, ... times the sample until one holds `most` tokens, or until the
        next would not fit into `capacity` bytes. Where passes are recorded, the first is one with
        as many tokens as the shortest recording has room for.

        A launched pass holds the same each time, so one of each size is enough. One that is
        recorded holds up to 1.5 % more (135M, H200), so those are passed a second time.
        """
        bank, length = self.bank, len(self.sample.tokens)
        slots: list[Slot] = []
        count, last = _first_count(length, most, self.recorded_tokens), Probe(0, 0)
        while True:
            self._fill(slots, count)
            found = self._probe(slots, count, 2 if count * length <= self.recorded_tokens else 1)
            if found is not None:
                yield found
            if found is None or found.tokens >= most:
                break
            grows = (found.bytes - last.bytes) / (found.tokens - last.tokens)
            kept = 2 * bank.num_rows * bank.bytes_per_rank
            if self.fixed + kept + found.bytes + grows * found.tokens > capacity:
                break
            count, last = 2 * count, found
        for slot in slots:
            bank.leave(slot)

    def seconds(self, tokens: int) -> float:
        """Of a pass over so many tokens, one of the sizes that there is room for."""
        count, slots, seconds = tokens // len(self.sample.tokens), list[Slot](), 0.0
        self._fill(slots, count)
        residents = self._residents(slots, count)
        for _ in range(_TIMED if tokens <= self.recorded_tokens else _LAUNCHED_TIMED):
            start = time.perf_counter()
            train_pass(self.backbone, self.bank, [self.sample], residents)
            torch.cuda.synchronize()
            seconds = time.perf_counter() - start
        for slot in slots:
            self.bank.leave(slot)
        return seconds

    def evaluation_bytes(self) -> int:
        """Most that an evaluation holds at a time, beside what is fixed and the bank."""
        slot = self.bank.join(random_state(self.bank, PROBE_RANK))
        max_tokens, _ = pass_limits(self.backbone)
        samples = [self.sample] * max(1, max_tokens // len(self.sample.tokens))
        torch.cuda.reset_peak_memory_stats()
        validation_loss(self.backbone, self.bank, samples, slot)
        self.bank.leave(slot)
        return self._peak()

    def _fill(self, slots: list[Slot], count: int) -> None:
        """A slot for each of so many samples, up to as many jobs as are probed side by side."""
        while len(slots) < min(count, _JOBS):
            slots.append(self.bank.join(random_state(self.bank, PROBE_RANK)))

    def _residents(self, slots: Sequence[Slot], count: int) -> list[Resident]:
        return [_resident(slot, count // len(slots), self.dropout) for slot in slots]

    def _probe(self, slots: Sequence[Slot], count: int, passes: int) -> Probe | None:
        """None if memory ran out."""
        tokens, residents = 0, self._residents(slots, count)
        torch.cuda.reset_peak_memory_stats()
        try:
            for _ in range(passes):
                tokens = train_pass(self.backbone, self.bank, [self.sample], residents)
                torch.cuda.synchronize()
        except torch.OutOfMemoryError:
            torch.cuda.empty_cache()
            return None
        return Probe(tokens, self._peak())

    def _peak(self) -> int:
        """What libraries keep for good counts each time, whichever pass asked for it first."""
        bank = self.bank.num_rows * self.bank.bytes_per_rank
        return torch.cuda.max_memory_allocated() - self.fixed - bank


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


def _resident(slot: Slot, batch_size: int, dropout: float) -> Resident:
    h = Hyperparameters(rank=slot.rank, learning_rate=0.0, batch_size=batch_size, dropout=dropout)
    return Resident(Job(id=JobId("probe"), hyperparameters=h, steps=9, reports=1), slot, Progress())
