"""The memory of an adapter bank: a few tensors with the same rows, and who has recorded them."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol
from weakref import WeakSet

import torch
from torch import Tensor

from alto_kernels.adamw import Moments

__all__ = ["AdapterState", "BankMemory", "Recordings"]


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

    def resize(self, rows: int) -> None:
        """Keep the first rows, as many as there are; one tensor after the other, so that no more
        than one is there twice."""
        for recordings in self._recordings:
            recordings.clear()
        has_copy = self.has_copy
        self.value_RC = _resized(self.value_RC, rows)
        self.grad_RC = _resized(self.grad_RC, rows)
        for number in range(len(self._moments)):
            self._moments[number] = _resized(self._moments[number], rows)
        self.shadow_RC = _resized(self.shadow_RC, rows) if has_copy else self.value_RC

    @torch.no_grad()
    def move(self, rows: slice, to: slice) -> None:
        """Copy rows to where others were, which they may overlap; what they leave stays."""
        for tensor in self._tensors():
            tensor[to] = tensor[rows].clone()

    @torch.no_grad()
    def clear(self, rows: slice) -> None:
        for tensor in self._tensors():
            tensor[rows] = 0

    def _tensors(self) -> Iterator[Tensor]:
        yield from (self.value_RC, self.grad_RC, *self._moments)
        if self.has_copy:
            yield self.shadow_RC


def _row_bytes(tensor: Tensor) -> int:
    return tensor.shape[1] * tensor.element_size()


def _resized(bank_RC: Tensor, rows: int) -> Tensor:
    after = bank_RC.new_zeros(rows, bank_RC.shape[1])
    kept = min(rows, bank_RC.shape[0])
    after[:kept] = bank_RC[:kept]
    return after
