"""s = scale * x A^T inside of the Hopper product, ahead of the tiles that meet it.

Where the tiles do not share out evenly, some programs have one less than the others. Those make s
first, in the same ring of buffers, and tell the others by flags which blocks are there. They are
the first of the grid, so they run whenever a program that waits for them does.
An *item* is a pair and up to COLUMNS columns of its block (ranks of all members side by side).
"""

import triton
from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.hopper import (
    mbarrier,
    tma,
    warpgroup_mma,
    warpgroup_mma_wait,
)

from alto_kernels.lora_linear.kernel.hopper_flags import publish, thread_barrier
from alto_kernels.lora_linear.kernel.hopper_tiles import OUTSIDE
from alto_kernels.lora_linear.tables import TILE_ROWS, Tables

__all__ = [
    "along_pays",
    "chunks_of",
    "fetch_shrink",
    "fits_along",
    "multiply_shrink",
    "producers_of",
]

_MOST_COLUMNS = 64
_PART = gl.constexpr(64)  # columns of x that one copy brings
# Microseconds, bytes and operations a microsecond of one program, bytes of a pass of its own, as
# measured on an H100.
_ITEM_US, _ITEM_RATE, _TILE_RATE, _PASS_US, _PASS_RATE = 3.0, 50e3, 6e6, 3.0, 2.5e6
# Along a tile: of as many columns of s, microseconds, and its share of the tile's time.
_ALONG_COLUMNS, _ALONG_US, _ALONG_SHARE = 16, 6.0, 0.4


def chunks_of(tables: Tables, members: int) -> tuple[int, int]:
    """How many items a pair has, and the columns of each."""
    width = tables.rank_width * members
    columns = min(_MOST_COLUMNS, triton.next_power_of_2(width))
    return triton.cdiv(width, columns), columns


def producers_of(tables: Tables, members: int, inputs: int, outputs: int, programs: int) -> int:
    """Programs that have a tile (of 256 columns) less than others; 0 where s is better made before.

    Making s inside costs what it takes longer than the first tile of the other programs.
    """
    chunks, _ = chunks_of(tables, members)
    idle = programs - tables.num_tiles * triton.cdiv(outputs, 256) % programs
    item_us, tile_us, before_us = _microseconds(tables, inputs)
    inside_us = triton.cdiv(tables.num_pairs * chunks, idle) * item_us - tile_us
    return idle if inside_us < before_us else 0


def fits_along(tables: Tables, members: int, programs: int) -> bool:
    """Whether s can be made along the product (`hopper_along.py`). Of 48 columns it took as long as
    in a pass of its own."""
    return 0 < tables.num_tiles <= programs and tables.rank_width * members <= _ALONG_COLUMNS


def along_pays(tables: Tables, inputs: int) -> bool:
    """What is made of others than the first segments of tiles, of which there may be as many, takes
    what a pass over x takes one program."""
    item_us, tile_us, before_us = _microseconds(tables, inputs)
    others = (tables.num_pairs - tables.num_tiles) / tables.num_tiles
    along_us = _ALONG_US + _ALONG_SHARE * tile_us + others * item_us
    return bool(others <= 1 and along_us < before_us)


def _microseconds(tables: Tables, inputs: int) -> tuple[float, float, float]:
    """An item; a tile; s in a pass of its own."""
    rows_bytes = TILE_ROWS * inputs * 2
    item_us = _ITEM_US + rows_bytes / _ITEM_RATE
    tile_us = 2 * TILE_ROWS * 256 * inputs / _TILE_RATE
    return item_us, tile_us, _PASS_US + tables.num_pairs * rows_bytes / _PASS_RATE


@gluon.jit
def _item_of(item, pairs, members, chunks, STEP: gl.constexpr, COLUMNS: gl.constexpr):
    """Pair, first column, end of the columns that have ranks, ranks of a member, first rank."""
    pair = item // chunks
    rank = gl.load(pairs + 3 * pair + 2)
    ranks = gl.cdiv(rank, STEP) * STEP
    first = (item % chunks) * COLUMNS
    return pair, first, ranks * members, gl.maximum(ranks, STEP), gl.load(pairs + 3 * pair + 1)


@gluon.jit
def _first_item(items, producers):
    """A program behind the producers has no item."""
    first = gl.program_id(0)
    if first >= producers:
        first = items
    return first


@gluon.jit
def fetch_shrink(
    x_desc, a_desc, x_ring, w_ring, stored, full, empty, pairs, segments, K, members, items, chunks,
    producers,
    STEP: gl.constexpr, BLOCK_M: gl.constexpr, STAGES: gl.constexpr, COLUMNS: gl.constexpr,
):  # fmt: skip
    """The fetching warp's part: x into the rings, A where y is stored later. Returns the turns."""
    dtype: gl.constexpr = x_desc.dtype
    steps: gl.constexpr = COLUMNS // STEP
    parts: gl.constexpr = 3 if COLUMNS <= 32 else 2  # of x in a turn; more of A would not fit
    turn = 0
    for item in range(_first_item(items, producers), items, producers):
        pair, first, used, ranks, first_rank = _item_of(item, pairs, members, chunks, STEP, COLUMNS)
        row = pair * BLOCK_M - gl.load(segments + 8 * gl.load(pairs + 3 * pair) + 4)
        for k in range(0, gl.where(first < used, K, 0), parts * _PART):
            at = turn % STAGES
            wide = w_ring.index(at)._reinterpret(dtype, [2, BLOCK_M, _PART], x_desc.layout)
            if parts == 3:
                narrow = stored._reinterpret(dtype, [16 * steps, STEP, _PART], x_desc.layout)
                slot = 4 * at
            else:
                narrow = x_ring.index(at)._reinterpret(
                    dtype, [2 * steps, STEP, _PART], x_desc.layout
                )
                slot = 0
            mbarrier.wait(empty.index(at), ((turn // STAGES) & 1) ^ 1)
            mbarrier.expect(full.index(at), (BLOCK_M + COLUMNS) * parts * _PART * 2)
            for part in gl.static_range(parts):
                column = k + part * _PART
                x_part = wide.index(part) if part < 2 else x_ring.index(at)
                tma.async_copy_global_to_shared(x_desc, [row, column], full.index(at), x_part)
                for i in gl.static_range(steps):
                    j = first + i * STEP
                    rank_row = first_rank + j % ranks
                    if j >= used:
                        rank_row = OUTSIDE
                    tma.async_copy_global_to_shared(
                        a_desc, [rank_row, j // ranks * K + column], full.index(at),
                        narrow.index((slot + part) * steps + i),
                    )  # fmt: skip
            turn += 1
    return turn


@gluon.jit
def multiply_shrink(
    x_desc, x_ring, w_ring, stored, full, empty, s, s_p, flags, pairs, segments, factors, K,
    members, width, items, chunks, producers,
    STEP: gl.constexpr, BLOCK_M: gl.constexpr, STAGES: gl.constexpr, COLUMNS: gl.constexpr,
):  # fmt: skip
    """The multiplying warps' part. Returns the turns taken."""
    dtype: gl.constexpr = x_desc.dtype
    layout: gl.constexpr = gl.NVMMADistributedLayout(
        version=[3, 0], warps_per_cta=[gl.num_warps(), 1], instr_shape=[16, COLUMNS, 16]
    )
    parts: gl.constexpr = 3 if COLUMNS <= 32 else 2
    m = gl.arange(0, BLOCK_M, layout=gl.SliceLayout(1, layout))
    n = gl.arange(0, COLUMNS, layout=gl.SliceLayout(0, layout))
    turn = 0
    for item in range(_first_item(items, producers), items, producers):
        pair, first, used, ranks, _ = _item_of(item, pairs, members, chunks, STEP, COLUMNS)
        acc = gl.zeros([BLOCK_M, COLUMNS], gl.float32, layout)
        for _ in range(0, gl.where(first < used, K, 0), parts * _PART):
            at = turn % STAGES
            wide = w_ring.index(at)._reinterpret(dtype, [2, BLOCK_M, _PART], x_desc.layout)
            if parts == 3:
                narrow = stored._reinterpret(dtype, [16, COLUMNS, _PART], x_desc.layout)
                slot = 4 * at
            else:
                narrow = x_ring.index(at)._reinterpret(dtype, [2, COLUMNS, _PART], x_desc.layout)
                slot = 0
            mbarrier.wait(full.index(at), (turn // STAGES) & 1)
            for part in gl.static_range(parts):
                x_part = wide.index(part) if part < 2 else x_ring.index(at)
                a_part = narrow.index(slot + part).permute((1, 0))
                acc = warpgroup_mma(x_part, a_part, acc, is_async=True)
            acc = warpgroup_mma_wait(num_outstanding=0, deps=(acc,))
            thread_barrier()
            mbarrier.arrive(empty.index(at))
            turn += 1
        index = gl.load(pairs + 3 * pair)
        segment = segments + 8 * index
        t = pair * BLOCK_M + m - gl.load(segment + 4)
        in_t = (t >= gl.load(segment)) & (t < gl.load(segment + 1))
        j = first + n
        in_r = j % ranks < gl.load(pairs + 3 * pair + 2)
        acc *= gl.load(factors + 2 * index)
        values = gl.where(gl.expand_dims(in_t, 1) & gl.expand_dims(in_r, 0), acc, 0.0)
        rows = gl.expand_dims((pair * BLOCK_M + m) * s_p, 1)
        s_mn = s + rows + gl.expand_dims(j // ranks * width + j % ranks, 0)
        gl.store(s_mn, values.to(dtype), mask=gl.expand_dims(j < used, 0))
        publish(flags + item)
    return turn
