"""Which rows of a batch belong together. Made once, then read by every layer.

Shape suffixes of this folder: T rows (tokens), D columns of all heads (queries have as many heads
as keys and values, or a multiple of that), h heads, t rows of one sequence, d columns of one head.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import torch
from torch import Tensor

from alto_kernels.copying import copied

__all__ = ["CumulativeLengths"]


@dataclass(frozen=True, slots=True)
class CumulativeLengths:
    """Where the sequences of a batch begin and end.

    Recorded launches keep `longest` and the number of sequences; `ends` may be written over.
    """

    lengths: tuple[int, ...]
    longest: int
    ends: Tensor  # int32 (sequences + 1,), from 0

    @classmethod
    def of(cls, lengths: Sequence[int], device: torch.device) -> "CumulativeLengths":
        ends = torch.tensor(tuple(accumulate(lengths, initial=0)), dtype=torch.int32)
        return cls(tuple(lengths), max(lengths), copied(ends, device))
