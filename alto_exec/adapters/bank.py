"""The adapters of all resident jobs, with their gradients and optimizer state, in flat memory.

One row is one unit of rank: for every group of linears that share their input the rows of A of its
members, then their rows of B transposed. A group sees its columns as views; a job owns consecutive
rows, so all that is its own is one block.
Suffixes: R rows of the bank, r rows of one job, C columns of the bank, I and O of one linear.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

import torch
from torch import Tensor

from alto_exec.adapters.bank_memory import AdapterState, BankMemory
from alto_kernels.adamw import Bank, Moments
from alto_kernels.lora_linear import AdaptedGroup

__all__ = ["AdapterBank", "AdapterState", "LinearShape", "Slot", "random_state"]


@dataclass(frozen=True, slots=True)
class LinearShape:
    """A frozen linear that adapters are attached to; `name` is its path in the model."""

    name: str
    inputs: int
    outputs: int
    joins: bool = False  # shares its input, and its group, with the linear before it


@dataclass(frozen=True, slots=True)
class Slot:
    """Consecutive bank rows that one job owns."""

    first: int
    rank: int

    @property
    def rows(self) -> slice:
        return slice(self.first, self.first + self.rank)


class AdapterBank:
    """Rows that jobs take and give back while the model stays as it is."""

    def __init__(
        self,
        shapes: Sequence[LinearShape],
        device: torch.device,
        rows: int = 64,
        dtype: torch.dtype | None = None,
        *,
        in_8_bits: bool = False,
    ) -> None:
        """The bank is in the default dtype, fp32, its moments in 8 bits if asked for; batches read
        a copy in `dtype` if that is narrower."""
        self.shapes = tuple(shapes)
        self.num_alike_layers = _num_alike(self.shapes)
        self._groups, self.columns, self.num_columns = _layout(self.shapes)
        self._device = device
        self._slots: list[Slot] = []  # in the order of their rows
        self.memory = BankMemory(rows, self.num_columns, device, dtype, in_8_bits=in_8_bits)
        self._adapted: dict[int, AdaptedGroup] = {}  # views of that memory

    @property
    def value_RC(self) -> Tensor:
        return self.memory.value_RC

    @property
    def grad_RC(self) -> Tensor:
        return self.memory.grad_RC

    @property
    def num_rows(self) -> int:
        return self.value_RC.shape[0]

    @property
    def num_taken_rows(self) -> int:
        return sum(slot.rank for slot in self._slots)

    @property
    def bytes_per_rank(self) -> int:
        """Value, gradient, both moments and the copy that batches read, of one row."""
        return self.memory.bytes_per_row

    def group(self, number: int, weight_OI: Tensor, bias_O: Tensor | None) -> AdaptedGroup:
        """The bank's columns of the group that begins with linear `number`, beside its frozen
        weights."""
        known = self._adapted.get(number)
        if known is not None and known.weight_OI is weight_OI and known.bias_O is bias_O:
            return known
        group, shadow_RC = self._groups[number], self.memory.shadow_RC.detach()
        adapted = AdaptedGroup(
            weight_OI=weight_OI,
            bias_O=bias_O,
            # It asks for a gradient only so that autograd reaches the first adapted linear.
            a_RMI=group.a_of(shadow_RC).detach().requires_grad_(),
            b_RO=shadow_RC[:, group.b],
            grad_a_RMI=group.a_of(self.grad_RC),
            grad_b_RO=self.grad_RC[:, group.b],
            outputs=group.outputs,
            number=number,
        )
        self._adapted[number] = adapted
        return adapted

    def rows(self) -> Bank:
        """All rows, for the optimizer; it keeps the copy that batches read up to date."""
        memory = self.memory
        copy_RC = memory.shadow_RC if memory.has_copy else None
        return Bank(memory.value_RC, memory.grad_RC, memory.moments, copy_RC)

    def join(self, state: AdapterState) -> Slot:
        """Take rows for an adapter and copy it in; the bank grows where no gap is wide enough. If
        memory runs out, nothing is taken."""
        rank = state.value_rC.shape[0]
        slot = Slot(_first_gap(self._slots, rank), rank)
        self.reserve(slot.rows.stop)
        self._slots = sorted([*self._slots, slot], key=lambda s: s.first)
        memory = self.memory
        with torch.no_grad():
            memory.value_RC[slot.rows].copy_(state.value_rC)
            if state.moments is not None:  # else the rows are zero as they are
                kept = zip(
                    memory.moments.tensors.values(), state.moments.tensors.values(), strict=True
                )
                for bank, own in kept:
                    bank[slot.rows].copy_(own)
            if memory.has_copy:
                memory.shadow_RC[slot.rows] = memory.value_RC[slot.rows]
        return slot

    def has_gap(self, rank: int) -> bool:
        """Whether an adapter of this rank finds rows without the bank growing."""
        return _first_gap(self._slots, rank) + rank <= self.num_rows

    def reserve(self, rows: int) -> None:
        """Grow to at least so many rows, no more: what is counted on is what is taken."""
        if rows > self.num_rows:
            self._adapted.clear()
            self.memory.resize(rows)

    def give_back(self, rows: int) -> None:
        """Shrink to so many rows, or as far as the last slot allows."""
        rows = max(rows, self._slots[-1].rows.stop if self._slots else 0)
        if rows < self.num_rows or self.memory.is_loose:
            self._adapted.clear()
            self.memory.resize(rows)

    def compact(self) -> Mapping[Slot, Slot]:
        """Move all slots to the front in their order, within the memory there is; where each one
        has gone. What was recorded stays good: which rows a launch reads stands in its tables."""
        moved: dict[Slot, Slot] = {}
        end = 0
        for slot in self._slots:
            moved[slot] = Slot(end, slot.rank)
            end += slot.rank
            if slot != moved[slot]:
                self.memory.move(slot.rows, moved[slot].rows)
        if self._slots:
            self.memory.clear(slice(end, self._slots[-1].rows.stop))
        self._slots = list(moved.values())
        return moved

    def leave(self, slot: Slot) -> None:
        """Give the rows back, zeroed: nothing of a departed job reaches the next owner."""
        self._slots.remove(slot)
        self.memory.clear(slot.rows)

    def state(self, slot: Slot, *, wait: bool = True) -> AdapterState:
        """A copy of what the job must not lose; without `wait` it is there when the device has
        come to it."""
        kept = (self.value_RC, *self.memory.moments.tensors.values())
        value_rC, *moments = (_in_main_memory(t.detach()[slot.rows]) for t in kept)
        state = AdapterState(value_rC, Moments(*moments))
        if wait and self._device.type == "cuda":
            torch.cuda.current_stream(self._device).synchronize()
        return state

    def fresh(self, rank: int, seed: int) -> AdapterState:
        """A new adapter, a function of (seed, linear): A uniform within 1/sqrt(inputs) as PEFT
        draws it, B zero."""
        value_rC = torch.zeros(rank, self.num_columns, pin_memory=self._device.type == "cuda")
        for number, (shape, (a, _)) in enumerate(zip(self.shapes, self.columns, strict=True)):
            generator = torch.Generator().manual_seed(seed * 1_000_003 + number)
            bound = shape.inputs**-0.5
            value_rC[:, a].uniform_(-bound, bound, generator=generator)
        return AdapterState(value_rC)

    def matrices(self, value_rC: Tensor) -> Iterator[tuple[str, Tensor, Tensor]]:
        """Each linear's name, A (r, inputs) and B transposed (r, outputs), as views."""
        for shape, (a, b) in zip(self.shapes, self.columns, strict=True):
            yield shape.name, value_rC[:, a], value_rC[:, b]


def random_state(bank: AdapterBank, rank: int) -> AdapterState:
    """An adapter that does something, made on the bank's own device."""
    value_rC = torch.randn(rank, bank.num_columns, device=bank.value_RC.device).mul_(0.02)
    return AdapterState(value_rC)


@dataclass(frozen=True, slots=True)
class _Group:
    """Columns of A of all members, and of B of all members."""

    inputs: int
    outputs: tuple[int, ...]
    a: slice
    b: slice

    def a_of(self, bank_RC: Tensor) -> Tensor:
        """(R, members, I), a view."""
        columns_RC = bank_RC[:, self.a]
        return columns_RC.view(len(bank_RC), len(self.outputs), self.inputs)


def _layout(
    shapes: Sequence[LinearShape],
) -> tuple[dict[int, _Group], tuple[tuple[slice, slice], ...], int]:
    """Groups by the number of their first linear, columns of A and B of each linear, and the
    number of all columns."""
    starts = [number for number, shape in enumerate(shapes) if not shape.joins]
    groups: dict[int, _Group] = {}
    columns: list[tuple[slice, slice]] = []
    end = 0
    for first, last in pairwise([*starts, len(shapes)]):
        members = shapes[first:last]
        inputs, outputs = members[0].inputs, tuple(shape.outputs for shape in members)
        assert all(shape.inputs == inputs for shape in members)
        a = slice(end, end + inputs * len(members))
        b = slice(a.stop, a.stop + sum(outputs))
        groups[first] = _Group(inputs, outputs, a, b)
        b_starts = accumulate(outputs, initial=b.start)
        for index, (size, start) in enumerate(zip(outputs, b_starts, strict=False)):
            a_start = a.start + index * inputs
            columns.append((slice(a_start, a_start + inputs), slice(start, start + size)))
        end = b.stop
    return groups, tuple(columns), end


def _num_alike(shapes: Sequence[LinearShape]) -> int:
    """Layers that are alike; one where they are not."""
    kinds = [(shape.inputs, shape.outputs, shape.joins) for shape in shapes]
    period = next(n for n in range(1, len(kinds) + 1) if kinds == kinds[:n] * (len(kinds) // n))
    return len(kinds) // period


def _first_gap(slots: Sequence[Slot], rank: int) -> int:
    """First row of the first gap of `rank` rows; behind all slots if there is none."""
    end = 0
    for slot in slots:
        if slot.first - end >= rank:
            return end
        end = slot.rows.stop
    return end


def _in_main_memory(rows_rC: Tensor) -> Tensor:
    """A copy in memory that the device writes to by itself, behind what it is at."""
    is_cuda = rows_rC.device.type == "cuda"
    into = torch.empty(rows_rC.shape, dtype=rows_rC.dtype, pin_memory=is_cuda)
    return into.copy_(rows_rC, non_blocking=True)
