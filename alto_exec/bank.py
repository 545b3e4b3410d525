"""The adapters of all resident jobs, with their gradients and optimizer state, in flat memory.

One row is one unit of rank: for every linear its row of A, then its row of B transposed. A linear
sees its columns as views; a job owns consecutive rows, so all that is its own is one block.
Suffixes: R rows of the bank, r rows of one job, C columns of the bank, I and O of one linear.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from alto_kernels.adamw import Bank
from alto_kernels.lora_linear import AdaptedLinear

__all__ = ["AdapterBank", "AdapterState", "LinearShape", "Slot"]


@dataclass(frozen=True, slots=True)
class LinearShape:
    """A frozen linear that adapters are attached to; `name` is its path in the model."""

    name: str
    inputs: int
    outputs: int


@dataclass(frozen=True, slots=True)
class Slot:
    """Consecutive bank rows that one job owns."""

    first: int
    rank: int

    @property
    def rows(self) -> slice:
        return slice(self.first, self.first + self.rank)


@dataclass(frozen=True, slots=True)
class AdapterState:
    """One job's adapter and its two AdamW moments: (r, C) each, fp32, in main memory."""

    value_rC: Tensor
    mean_rC: Tensor
    square_rC: Tensor


class AdapterBank:
    """Rows that jobs take and give back while the model stays as it is."""

    def __init__(
        self,
        shapes: Sequence[LinearShape],
        device: torch.device,
        rows: int = 64,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        """With a `dtype` of 16 bits a copy of the values in it is what the linears read."""
        self.shapes = tuple(shapes)
        self._dtype = dtype if dtype.itemsize == 2 else torch.float32
        self._columns = tuple(_columns(shapes))
        self._device = device
        self._slots: list[Slot] = []  # in the order of their rows
        self._allocate(rows)

    @property
    def num_columns(self) -> int:
        _, last = self._columns[-1]
        return int(last.stop)

    @property
    def num_rows(self) -> int:
        return self.value_RC.shape[0]

    @property
    def bytes_per_rank(self) -> int:
        """Value, gradient, both moments and the copy of one row."""
        copy = self._dtype.itemsize if self._dtype != torch.float32 else 0
        return (4 * 4 + copy) * self.num_columns

    def linear(self, number: int, weight_OI: Tensor, bias_O: Tensor | None) -> AdaptedLinear:
        """The bank's columns of one linear, beside its frozen weights."""
        a, b = self._columns[number]
        return AdaptedLinear(
            weight_OI=weight_OI,
            bias_O=bias_O,
            a_RI=self.copy_RC[:, a],
            b_RO=self.copy_RC[:, b],
            grad_a_RI=self.grad_RC[:, a],
            grad_b_RO=self.grad_RC[:, b],
            number=number,
        )

    def join(self, state: AdapterState) -> Slot:
        """Take rows for an adapter and copy it in; the bank grows where no gap is wide enough."""
        rank = state.value_rC.shape[0]
        slot = Slot(self._gap(rank), rank)
        if slot.rows.stop > self.num_rows:
            self._grow(max(slot.rows.stop, 2 * self.num_rows))
        self._slots = sorted([*self._slots, slot], key=lambda s: s.first)
        with torch.no_grad():
            self.value_RC[slot.rows] = state.value_rC.to(self._device)
            self.mean_RC[slot.rows] = state.mean_rC.to(self._device)
            self.square_RC[slot.rows] = state.square_rC.to(self._device)
            self.copy_RC[slot.rows] = self.value_RC[slot.rows].to(self._dtype)
        return slot

    def leave(self, slot: Slot) -> None:
        """Give the rows back, zeroed: nothing of a departed job reaches the next owner."""
        self._slots.remove(slot)
        with torch.no_grad():
            for tensor in self._tensors:
                tensor[slot.rows] = 0

    def state(self, slot: Slot) -> AdapterState:
        """A copy of what the job must not lose."""
        kept = (self.value_RC, self.mean_RC, self.square_RC)
        return AdapterState(*(t.detach()[slot.rows].to("cpu", copy=True) for t in kept))

    def fresh(self, rank: int, seed: int) -> AdapterState:
        """A new adapter, a function of (seed, linear): A uniform within 1/sqrt(inputs) as PEFT
        draws it, B zero."""
        value_rC = torch.zeros(rank, self.num_columns)
        for number, (a, _) in enumerate(self._columns):
            generator = torch.Generator().manual_seed(seed * 1_000_003 + number)
            bound = self.shapes[number].inputs ** -0.5
            value_rC[:, a].uniform_(-bound, bound, generator=generator)
        return AdapterState(value_rC, torch.zeros_like(value_rC), torch.zeros_like(value_rC))

    def matrices(self, value_rC: Tensor) -> Iterator[tuple[str, Tensor, Tensor]]:
        """Each linear's name, A (r, inputs) and B transposed (r, outputs), as views."""
        for shape, (a, b) in zip(self.shapes, self._columns, strict=True):
            yield shape.name, value_rC[:, a], value_rC[:, b]

    def _gap(self, rank: int) -> int:
        """First row of the first gap of `rank` rows; behind all slots if there is none."""
        end = 0
        for slot in self._slots:
            if slot.first - end >= rank:
                return end
            end = slot.rows.stop
        return end

    def _allocate(self, rows: int) -> None:
        size, device = (rows, self.num_columns), self._device
        self.value_RC = torch.zeros(size, device=device)
        self.grad_RC = torch.zeros(size, device=device)
        self.mean_RC = torch.zeros(size, device=device)
        self.square_RC = torch.zeros(size, device=device)
        is_narrow = self._dtype != torch.float32
        copy_RC = (
            torch.zeros(size, device=device, dtype=self._dtype) if is_narrow else self.value_RC
        )
        # It asks for a gradient only so that autograd reaches the first adapted linear.
        self.copy_RC = copy_RC.requires_grad_()

    @property
    def tensors(self) -> Bank:
        """What an optimizer step reads and changes."""
        copy_RC = None if self.copy_RC is self.value_RC else self.copy_RC
        return Bank(self.value_RC, self.grad_RC, self.mean_RC, self.square_RC, copy_RC)

    @property
    def _tensors(self) -> tuple[Tensor, ...]:
        return self.value_RC, self.grad_RC, self.mean_RC, self.square_RC, self.copy_RC

    def _grow(self, rows: int) -> None:
        old = self._tensors
        self._allocate(rows)
        with torch.no_grad():
            for before, after in zip(old, self._tensors, strict=True):
                after[: before.shape[0]] = before


def _columns(shapes: Sequence[LinearShape]) -> Iterator[tuple[slice, slice]]:
    start = 0
    for shape in shapes:
        middle, end = start + shape.inputs, start + shape.inputs + shape.outputs
        yield slice(start, middle), slice(middle, end)
        start = end
