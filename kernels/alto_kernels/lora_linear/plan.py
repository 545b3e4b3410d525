"""Which rows of a batch meet which rows of the adapter bank. Made once, then read by every layer.

Shape suffixes of this folder: T rows of the batch (tokens), I inputs and O outputs of a linear,
R rows of the bank (units of rank), r units of rank of one adapter.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from torch import Tensor

__all__ = ["AdaptedLinear", "Plan", "Segment"]


@dataclass(frozen=True, slots=True)
class Segment:
    """Rows `first_row` to `end_row` belong to the adapter in bank rows `first_rank` to `end_rank`.

    The dropout mask of a row is a function of `dropout_key` and of `first_token` plus the row's
    place in the segment, so it does not depend on what else is in the batch.
    """

    first_row: int
    end_row: int
    first_rank: int
    end_rank: int
    scale: float
    dropout: float = 0.0
    dropout_key: int = 0  # 32 bits
    first_token: int = 0


@dataclass(frozen=True, slots=True)
class Plan:
    """Segments in the order of their rows; rows outside of all segments meet no adapter.

    A segment may be empty. Raises ValueError where rows overlap or leave the batch.
    """

    num_rows: int
    segments: tuple[Segment, ...]

    def __post_init__(self) -> None:
        for segment in self.segments:
            if not 0 <= segment.first_row <= segment.end_row <= self.num_rows:
                raise ValueError(f"{segment} leaves a batch of {self.num_rows} rows")
            if not 0 <= segment.first_rank < segment.end_rank:
                raise ValueError(f"{segment} has no rank")
        for before, after in pairwise(self.segments):
            if after.first_row < before.end_row:
                raise ValueError(f"{after} begins before the end of {before}")


@dataclass(frozen=True, slots=True)
class AdaptedLinear:
    """A frozen linear and its columns of the adapter bank, both as views.

    The backward pass adds the gradients of A and B to `grad_a_RI` and `grad_b_RO`.
    """

    weight_OI: Tensor
    bias_O: Tensor | None
    a_RI: Tensor
    b_RO: Tensor
    grad_a_RI: Tensor
    grad_b_RO: Tensor
    number: int  # tells the dropout masks of one linear from those of another


def check(x_TI: Tensor, linear: AdaptedLinear, plan: Plan) -> None:
    """Raises ValueError where the batch, the linear and the plan do not belong together."""
    if x_TI.shape != (plan.num_rows, linear.weight_OI.shape[1]):
        raise ValueError(
            f"x {tuple(x_TI.shape)}, weight {tuple(linear.weight_OI.shape)} "
            f"and a plan of {plan.num_rows} rows"
        )


def segments_with_rows(segments: Sequence[Segment]) -> tuple[Segment, ...]:
    return tuple(s for s in segments if s.end_row > s.first_row)
