"""The memory of an adapter bank: a few tensors with the same rows, and who has recorded them."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol
from weakref import WeakSet, ref

import torch
from torch import Tensor

from alto_kernels.adamw import Moments

__all__ = ["AdapterState", "BankMemory", "RecordedBank", "Recordings"]


@dataclass(frozen=True, slots=True)
class AdapterState:
    """One job's adapter (r, C) and its two moments, in main memory; none if it was never
    trained."""

    value_rC: Tensor
    moments: Moments | None = None


class Recordings(Protocol):
    """Launches that were recorded with the addresses of a bank."""

    def clear(self) -> None: ...


class BankMemory:
    """(R, C) each: values, gradients and both moments in the default dtype, the moments in 8 bits
    if asked for, and a copy of the values in `dtype` where that is narrower. Rows that nobody owns
    are zero."""

    def __init__(
        self,
        rows: int,
        columns: int,
        device: torch.device,
        dtype: torch.dtype | None,
        *,
        in_8_bits: bool,
    ) -> None:
        size = (rows, columns)
        self.value_RC, self.grad_RC = (torch.zeros(size, device=device) for _ in range(2))
        moments = Moments.zeros(rows, columns, device, in_8_bits=in_8_bits)
        self._moments = list(moments.tensors.values())
        self.shadow_RC = self.value_RC
        if dtype is not None and dtype.itemsize < self.value_RC.element_size():
            self.shadow_RC = torch.zeros(size, device=device, dtype=dtype)
        self._recordings: WeakSet[Recordings] = WeakSet()

    @property
    def moments(self) -> Moments:
        return Moments(*self._moments)

    @property
    def has_copy(self) -> bool:
        return self.shadow_RC is not self.value_RC

    @property
    def bytes_per_row(self) -> int:
        return sum(_row_bytes(tensor) for tensor in self._tensors())

    @property
    def state_bytes_per_row(self) -> int:
        """Of what a job must not lose."""
        return sum(_row_bytes(tensor) for tensor in (self.value_RC, *self._moments))

    def state_like(self, rank: int) -> AdapterState:
        """What an adapter of this rank is kept in: shapes and dtypes, without memory."""
        columns, nowhere = self.value_RC.shape[1], torch.device("meta")
        moments = Moments.zeros(rank, columns, nowhere, in_8_bits=self.moments.in_8_bits)
        return AdapterState(torch.empty(rank, columns, device=nowhere), moments)

    def watch(self, recordings: Recordings) -> None:
        """Have them cleared before the tensors move: they are no good then, and hold memory."""
        self._recordings.add(recordings)

    @property
    def is_loose(self) -> bool:
        """Whether tensors are parts of larger ones, since memory ran out as they shrank."""
        return any(t.untyped_storage().nbytes() > t.nbytes for t in self._tensors())

    def resize(self, rows: int) -> None:
        """Keep the first rows, as many as there are; one tensor after the other, so that no more
        than one is there twice. If memory runs out, the tensors have as many rows as all of them
        can have, and the error goes on."""
        for recordings in self._recordings:
            recordings.clear()
        kept = min(rows, self.value_RC.shape[0])
        try:
            self._replace(lambda tensor: _resized(tensor, rows))
        except torch.OutOfMemoryError:
            self._replace(lambda tensor: tensor[:kept])
            raise

    @torch.no_grad()
    def move(self, rows: slice, to: slice) -> None:
        """Copy rows to where others were before them; what they leave stays. Takes no memory, so
        that it does not end half way: where both overlap, a few rows at a time."""
        distance = rows.start - to.start
        for tensor in self._tensors():
            for first in range(to.start, to.stop, distance):
                part = slice(first, min(first + distance, to.stop))
                tensor[part] = tensor[part.start + distance : part.stop + distance]

    @torch.no_grad()
    def clear(self, rows: slice) -> None:
        for tensor in self._tensors():
            tensor[rows] = 0

    def _replace(self, change: Callable[[Tensor], Tensor]) -> None:
        has_copy = self.has_copy
        self.value_RC = change(self.value_RC)
        if not has_copy:
            self.shadow_RC = self.value_RC
        self.grad_RC = change(self.grad_RC)
        for number in range(len(self._moments)):
            self._moments[number] = change(self._moments[number])
        if has_copy:
            self.shadow_RC = change(self.shadow_RC)

    def _tensors(self) -> Iterator[Tensor]:
        yield from (self.value_RC, self.grad_RC, *self._moments)
        if self.has_copy:
            yield self.shadow_RC


class RecordedBank:
    """The bank whose addresses launches were recorded with: recordings serve one at a time."""

    def __init__(self, recordings: Recordings) -> None:
        self._recordings = ref(recordings)  # which own this
        self._memory: ref[BankMemory] | None = None

    @property
    def memory(self) -> BankMemory | None:
        return None if self._memory is None else self._memory()

    def meet(self, memory: BankMemory) -> None:
        """Have them cleared if this is another bank than the last, and before this one moves."""
        recordings = self._recordings()
        assert recordings is not None
        if self.memory is not memory:
            recordings.clear()
            self._memory = ref(memory)
            memory.watch(recordings)


def _row_bytes(tensor: Tensor) -> int:
    return tensor.shape[1] * tensor.element_size()


def _resized(bank_RC: Tensor, rows: int) -> Tensor:
    after = bank_RC.new_zeros(rows, bank_RC.shape[1])
    kept = min(rows, bank_RC.shape[0])
    after[:kept] = bank_RC[:kept]
    return after
