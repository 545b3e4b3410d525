"""Which rows of a batch meet which rows of the adapter bank. Made once, then read by every layer.

Shape suffixes of this folder: T rows of the batch (tokens), I inputs of a linear, M members of a
group of linears, O outputs of all members side by side, R rows of the bank (units of rank), r units
of rank of one adapter, P rows of the pairs' blocks (see `tables.py`).
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import accumulate, pairwise

import torch
from torch import Tensor

from alto_kernels.lora_linear.segments import Segment, segments_with_rows
from alto_kernels.lora_linear.tables import (
    Tables,
    TablesShape,
    empty_tables,
    fill_tables,
    tables_of,
)

__all__ = ["AdaptedGroup", "Plan"]


@dataclass(frozen=True, slots=True)
class Plan:
    """Segments in the order of their rows; rows outside of all segments meet no adapter.

    A segment may be empty; the gradients of an adapter without rows stay as they are. Raises
    ValueError where rows overlap or leave the batch, or where one adapter's gradients would be
    written over in one batch.
    """

    num_rows: int
    segments: tuple[Segment, ...]
    _tables: dict[torch.device, Tables] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    def __post_init__(self) -> None:
        for segment in self.segments:
            if not 0 <= segment.first_row <= segment.end_row <= self.num_rows:
                raise ValueError(f"{segment} leaves a batch of {self.num_rows} rows")
            if not 0 <= segment.first_rank < segment.end_rank:
                raise ValueError(f"{segment} has no rank")
            if not 0 <= segment.dropout < 1:
                raise ValueError(f"{segment} drops what it should train on")
        for before, after in pairwise(self.segments):
            if after.first_row < before.end_row:
                raise ValueError(f"{after} begins before the end of {before}")
        by_rank = sorted(segments_with_rows(self.segments), key=lambda s: s.first_rank)
        for before, after in pairwise(by_rank):
            shared = after.first_rank < before.end_rank
            if shared and (before.starts_gradients or after.starts_gradients):
                raise ValueError(f"{after} and {before} write over one gradient")

    def adding(self) -> "Plan":
        """This plan where all gradients are added: for linears that a pass may call repeatedly."""
        segments = tuple(replace(s, starts_gradients=False) for s in self.segments)
        return Plan(self.num_rows, segments)

    def tables(self, device: torch.device) -> Tables:
        """What the kernels read, copied to the device when first asked for."""
        if device not in self._tables:
            self._tables[device] = tables_of(self.segments, self.num_rows, device)
        return self._tables[device]

    def with_room(self, shape: TablesShape, device: torch.device) -> "Plan":
        """This plan in a batch of `shape.num_rows` rows, in tables that `refill` can write over."""
        roomy = Plan(shape.num_rows, self.segments)
        roomy._tables[device] = empty_tables(shape, device)
        roomy.refill(self, device)
        return roomy

    def refill(self, plan: "Plan", device: torch.device) -> None:
        """Write a plan of the same shape over the tables: launches that were recorded read it.

        `segments` stay what they were, so nothing but recorded launches may read this plan then.
        """
        fill_tables(self._tables[device], plan.tables(device))


@dataclass(frozen=True, slots=True)
class AdaptedGroup:
    """Frozen linears that share their input, and their columns of the adapter bank, as views.

    The weights of the members stand below one another in `weight_OI`; each member has an A and a B
    of its own. `a_RMI` and `b_RO` may be a copy of the bank in a narrower dtype than the gradients.
    The backward pass adds the gradients of A and B to `grad_a_RMI` and `grad_b_RO`, or writes them
    there where a segment starts them.
    """

    weight_OI: Tensor
    bias_O: Tensor | None
    a_RMI: Tensor
    b_RO: Tensor
    grad_a_RMI: Tensor
    grad_b_RO: Tensor
    outputs: tuple[int, ...]  # of each member
    number: int  # of the first member; tells the dropout masks of one linear from another's

    @property
    def inputs(self) -> int:
        return self.weight_OI.shape[1]

    @property
    def members(self) -> Iterator[tuple[int, slice]]:
        """Number of each member and its columns of O."""
        ends = accumulate(self.outputs)
        for index, (size, end) in enumerate(zip(self.outputs, ends, strict=True)):
            yield index, slice(end - size, end)


def check(x_TI: Tensor, group: AdaptedGroup, plan: Plan) -> None:
    """Raises ValueError where the batch, the linears and the plan do not belong together."""
    if x_TI.shape != (plan.num_rows, group.inputs):
        raise ValueError(
            f"x {tuple(x_TI.shape)}, weight {tuple(group.weight_OI.shape)} "
            f"and a plan of {plan.num_rows} rows"
        )
    if sum(group.outputs) != group.weight_OI.shape[0]:
        raise ValueError(f"{group.outputs} outputs of {tuple(group.weight_OI.shape)} weights")
    rows = min(group.a_RMI.shape[0], group.b_RO.shape[0])
    if any(s.end_rank > rows for s in plan.segments):
        raise ValueError(f"a segment of the plan lies behind the {rows} rows of the bank")
