"""The tables that the kernels read instead of a Plan.

The rows of a batch are cut into tiles. A tile and a segment with rows in it are a *pair*, and every
pair owns a block of TILE_ROWS rows in the narrow matrices (x A^T and dy B^T): the segment's rows
where the tile has them, and zero rows elsewhere. So a product over a block needs no mask, and no
segment is padded in the wide matrices. Row `t` of a segment lies in row `t + shift` of the blocks.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from math import log2

import torch
from torch import Tensor

from alto_kernels.copying import copied
from alto_kernels.lora_linear.dropout import dropout_key, threshold
from alto_kernels.lora_linear.segments import Segment, segments_with_rows

__all__ = [
    "TILE_ROWS",
    "Tables",
    "TablesShape",
    "empty_tables",
    "fill_tables",
    "rank_step",
    "room_for",
    "tables_of",
]

TILE_ROWS = 128
_ALIGNED = 4  # whole numbers in the 16 bytes to which kernels may count on an address


@dataclass(frozen=True, slots=True)
class Tables:
    """Whole numbers are int32. Segments without rows are left out."""

    tile_pairs: Tensor  # (tiles + 1): the first pair of each tile
    pairs: Tensor  # (pairs, 3): segment, first rank, rank
    segments: Tensor  # (segments, 8): see `_segment_row`
    factors: Tensor  # (segments, 2) fp32: scale, 1 / (1 - dropout)
    adds: Tensor  # (segments): whether gradients are added to the bank's, or written over them
    num_rows: int
    num_pairs: int
    num_segments: int
    max_rank: int
    max_segment: int  # rows of the longest
    rank_step: int  # ranks of a block are filled up to a multiple of this with zeros
    has_dropout: bool

    @property
    def rank_width(self) -> int:
        """Columns that a block has for each member of a group."""
        return -(-self.max_rank // self.rank_step) * self.rank_step

    @property
    def num_tiles(self) -> int:
        return self.tile_pairs.shape[0] - 1


@dataclass(frozen=True, slots=True)
class TablesShape:
    """All that a launch reads of tables on the host: those of one shape share their launches."""

    num_rows: int
    num_segments: int
    max_segment: int
    rank_width: int
    rank_step: int
    has_dropout: bool

    @classmethod
    def around(cls, tables: Tables, num_rows: int) -> "TablesShape":
        """With room for these tables and for others like them, in batches of `num_rows` rows."""
        return cls(
            num_rows=num_rows,
            num_segments=room_for(tables.num_segments),
            max_segment=1 << (tables.max_segment - 1).bit_length(),
            rank_width=tables.rank_width,
            rank_step=tables.rank_step,
            has_dropout=tables.has_dropout,
        )

    @property
    def num_tiles(self) -> int:
        return -(-self.num_rows // TILE_ROWS)

    @property
    def num_pairs(self) -> int:
        """A tile has one more pair than segments that begin inside of it."""
        return self.num_tiles + self.num_segments


def room_for(count: int, least: int = 8) -> int:
    """`count` and at most an eighth (or `least`) more: few different sizes for many counts."""
    step = max(least, (1 << max(0, count - 1).bit_length()) // 16)
    return max(1, -(-count // step)) * step


def empty_tables(shape: TablesShape, device: torch.device) -> Tables:
    """Tables of nothing, for `fill_tables`."""

    def zeros(*size: int, dtype: torch.dtype = torch.int32) -> Tensor:
        return torch.zeros(*size, dtype=dtype, device=device)

    return Tables(
        tile_pairs=zeros(shape.num_tiles + 1),
        pairs=zeros(shape.num_pairs, 3),
        segments=zeros(shape.num_segments, 8),
        factors=zeros(shape.num_segments, 2, dtype=torch.float32),
        adds=zeros(shape.num_segments),
        num_rows=shape.num_rows,
        num_pairs=shape.num_pairs,
        num_segments=shape.num_segments,
        max_rank=shape.rank_width,
        max_segment=shape.max_segment,
        rank_step=shape.rank_step,
        has_dropout=shape.has_dropout,
    )


def fill_tables(room: Tables, tables: Tables) -> None:
    """Copy tables into those of a shape around them; pairs and segments left over have no rank."""
    rests = (
        (room.tile_pairs, tables.tile_pairs, tables.num_pairs),
        (room.pairs, tables.pairs, 0),
        (room.segments, tables.segments, 0),
        (room.factors, tables.factors, 0),
        (room.adds, tables.adds, 0),
    )
    for whole, part, rest in rests:
        whole[: len(part)] = part
        whole[len(part) :] = rest


def tables_of(segments: Sequence[Segment], num_rows: int, device: torch.device) -> Tables:
    segments = segments_with_rows(segments)
    tiles = -(-num_rows // TILE_ROWS)
    of_tile: list[list[int]] = [[] for _ in range(tiles)]
    for index, s in enumerate(segments):
        for tile in range(s.first_row // TILE_ROWS, (s.end_row - 1) // TILE_ROWS + 1):
            of_tile[tile].append(index)
    # Blocks are in the order of the segments, which is that of the tiles as well.
    pairs = [index for indices in of_tile for index in indices]
    first_block: dict[int, int] = {}
    for block, index in enumerate(pairs):
        first_block.setdefault(index, block)
    starts = [0, *accumulate(len(indices) for indices in of_tile)]
    rows = [_segment_row(s, first_block[index]) for index, s in enumerate(segments)]
    pair_rows = [value for i in pairs for value in (i, segments[i].first_rank, segments[i].rank)]
    adds = [int(not s.starts_gradients) for s in segments]
    segment_rows = [value for row in rows for value in row]
    parts = (starts, pair_rows, segment_rows, adds)
    # Each begins at an address that kernels are compiled for, whatever the batch: at another one
    # they would be compiled again.
    flat = [value for part in parts for value in (*part, *_filler(part))]
    whole = copied(torch.tensor(flat, dtype=torch.int64).to(torch.int32), device)
    sizes = [size for part in parts for size in (len(part), len(_filler(part)))]
    tile_pairs, _, pair_table, _, segment_table, _, adds_table, _ = torch.split(whole, sizes)
    factors = [(s.scale, 1 / (1 - s.dropout)) for s in segments]
    ranks = [s.rank for s in segments]
    return Tables(
        tile_pairs=tile_pairs,
        pairs=pair_table.view(-1, 3),
        segments=segment_table.view(-1, 8),
        factors=copied(torch.tensor(factors, dtype=torch.float32).view(-1, 2), device),
        adds=adds_table,
        num_rows=num_rows,
        num_pairs=len(pairs),
        num_segments=len(segments),
        max_rank=max(ranks, default=0),
        max_segment=max((s.end_row - s.first_row for s in segments), default=0),
        rank_step=rank_step(ranks),
        has_dropout=any(s.dropout for s in segments),
    )


def _filler(part: Sequence[int]) -> Sequence[int]:
    return (0,) * (-len(part) % _ALIGNED)


def _segment_row(s: Segment, first_block: int) -> tuple[int, ...]:
    shift = TILE_ROWS * (first_block - s.first_row // TILE_ROWS)
    key = _signed(dropout_key(s.dropout_key))
    token = _signed(s.first_token & 0xFFFFFFFF)
    bits = threshold(s.dropout)
    return s.first_row, s.end_row, s.first_rank, s.rank, shift, bits, key, token


def _signed(bits: int) -> int:
    """The int32 that holds these 32 bits."""
    return bits - (1 << 32) if bits >> 31 else bits


def rank_step(ranks: Sequence[int]) -> int:
    """One step of the expand takes a middling rank whole; a lower rank pays for the step.

    A power of two from 16 to 64 near the geometric mean of the ranks (measured on an H100).
    """
    middling = round(sum(log2(rank) for rank in ranks) / max(1, len(ranks)))
    return int(2 ** min(6, max(4, middling)))
