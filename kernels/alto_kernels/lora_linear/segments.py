"""Rows of a batch, and the adapter that they belong to."""

from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["Segment", "segments_with_rows"]


@dataclass(frozen=True, slots=True)
class Segment:
    """Rows `first_row` to `end_row` belong to the adapter in bank rows `first_rank` to `end_rank`.

    The dropout mask of a row is a function of `dropout_key` and of `first_token` plus the row's
    place in the segment, so it does not depend on what else is in the batch. With
    `starts_gradients` the gradients found are written over the bank's and not added to them: for
    linears that are called once in a pass.
    """

    first_row: int
    end_row: int
    first_rank: int
    end_rank: int
    scale: float
    dropout: float = 0.0
    dropout_key: int = 0  # 32 bits
    first_token: int = 0
    starts_gradients: bool = False

    @property
    def rank(self) -> int:
        return self.end_rank - self.first_rank


def segments_with_rows(segments: Sequence[Segment]) -> tuple[Segment, ...]:
    return tuple(s for s in segments if s.end_row > s.first_row)
