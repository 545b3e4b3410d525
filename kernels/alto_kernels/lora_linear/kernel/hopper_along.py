"""s = scale * x A^T along the Hopper product, by the programs that have x in their buffers anyway.

The first tile of the first programs is one of the first 256 columns, of a row of tiles each. While
x passes for it, it is multiplied with A as well, which costs a tenth of that tile's time; the other
programs meet s at the end of their first tile, and are told by flags. A lies where y is stored
later. Of the segments in a tile the first is made so, the others in passes of x alone ahead of it.
"""

from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.hopper import (
    mbarrier,
    tma,
    warpgroup_mma,
    warpgroup_mma_wait,
)

from alto_kernels.lora_linear.kernel.hopper_flags import publish, thread_barrier
from alto_kernels.lora_linear.kernel.hopper_tiles import OUTSIDE, fetch_weight

__all__ = ["fetch_along", "multiply_along"]

_PART = gl.constexpr(64)  # columns of x that one copy brings


@gluon.jit
def _fetch_a(
    x_desc, a_desc, stored, full, at, pairs, pair, k, K, members,
    STEP: gl.constexpr, COLUMNS: gl.constexpr,
):  # fmt: skip
    """A part of A for the columns of a pair's block."""
    steps: gl.constexpr = COLUMNS // STEP
    blocks: gl.constexpr = 512 // STEP
    narrow = stored._reinterpret(a_desc.dtype, [blocks, STEP, _PART], x_desc.layout)
    first_rank, rank = gl.load(pairs + 3 * pair + 1), gl.load(pairs + 3 * pair + 2)
    ranks = gl.maximum(gl.cdiv(rank, STEP) * STEP, STEP)
    for i in gl.static_range(steps):
        rank_row = first_rank + (i * STEP) % ranks
        if i * STEP >= ranks * members:
            rank_row = OUTSIDE
        tma.async_copy_global_to_shared(
            a_desc, [rank_row, (i * STEP) // ranks * K + k], full.index(at),
            narrow.index(at * steps + i),
        )  # fmt: skip


@gluon.jit
def _fetch_others(
    x_desc, a_desc, x_ring, stored, full, empty, pairs, first_pair, end_pair, row, K, members, turn,
    STEP: gl.constexpr, BLOCK_M: gl.constexpr, STAGES: gl.constexpr, COLUMNS: gl.constexpr,
):  # fmt: skip
    for pair in range(first_pair, end_pair):
        for k in range(0, K, _PART):
            at = turn % STAGES
            mbarrier.wait(empty.index(at), ((turn // STAGES) & 1) ^ 1)
            mbarrier.expect(full.index(at), (BLOCK_M + COLUMNS) * _PART * 2)
            tma.async_copy_global_to_shared(x_desc, [row, k], full.index(at), x_ring.index(at))
            _fetch_a(x_desc, a_desc, stored, full, at, pairs, pair, k, K, members, STEP, COLUMNS)
            turn += 1
    return turn


@gluon.jit
def _a_part(stored, at, x_desc, COLUMNS: gl.constexpr):
    """(64, COLUMNS)"""
    blocks: gl.constexpr = 512 // COLUMNS
    narrow = stored._reinterpret(x_desc.dtype, [blocks, COLUMNS, _PART], x_desc.layout)
    return narrow.index(at).permute((1, 0))


@gluon.jit
def _store_s(
    acc_s, s, s_p, pairs, segments, factors, pair, members, width,
    STEP: gl.constexpr, BLOCK_M: gl.constexpr, COLUMNS: gl.constexpr, layout: gl.constexpr,
    dtype: gl.constexpr,
):  # fmt: skip
    m = gl.arange(0, BLOCK_M, layout=gl.SliceLayout(1, layout))
    j = gl.arange(0, COLUMNS, layout=gl.SliceLayout(0, layout))
    rank = gl.load(pairs + 3 * pair + 2)
    ranks = gl.maximum(gl.cdiv(rank, STEP) * STEP, STEP)
    index = gl.load(pairs + 3 * pair)
    segment = segments + 8 * index
    t = pair * BLOCK_M + m - gl.load(segment + 4)
    in_t = (t >= gl.load(segment)) & (t < gl.load(segment + 1))
    in_r = j % ranks < rank
    scaled = acc_s * gl.load(factors + 2 * index)
    values = gl.where(gl.expand_dims(in_t, 1) & gl.expand_dims(in_r, 0), scaled, 0.0)
    rows = gl.expand_dims((pair * BLOCK_M + m) * s_p, 1)
    s_mn = s + rows + gl.expand_dims(j // ranks * width + j % ranks, 0)
    gl.store(s_mn, values.to(dtype), mask=gl.expand_dims(j < ranks * members, 0))


@gluon.jit
def _multiply_others(
    x_desc, x_ring, stored, full, empty, s, s_p, pairs, segments, factors, first_pair, end_pair, K,
    members, width, turn,
    STEP: gl.constexpr, BLOCK_M: gl.constexpr, STAGES: gl.constexpr, COLUMNS: gl.constexpr,
    layout: gl.constexpr,
):  # fmt: skip
    dtype: gl.constexpr = x_desc.dtype
    for pair in range(first_pair, end_pair):
        acc_s = gl.zeros([BLOCK_M, COLUMNS], gl.float32, layout)
        for _ in range(0, K, _PART):
            at = turn % STAGES
            mbarrier.wait(full.index(at), (turn // STAGES) & 1)
            acc_s = warpgroup_mma(
                x_ring.index(at), _a_part(stored, at, x_desc, COLUMNS), acc_s, is_async=True
            )
            acc_s = warpgroup_mma_wait(num_outstanding=0, deps=(acc_s,))
            thread_barrier()
            mbarrier.arrive(empty.index(at))
            turn += 1
        _store_s(
            acc_s, s, s_p, pairs, segments, factors, pair, members, width,
            STEP, BLOCK_M, COLUMNS, layout, dtype,
        )  # fmt: skip
    return turn


@gluon.jit
def fetch_along(
    x_desc, w_desc, a_desc, x_ring, w_ring, stored, full, empty, pairs, makes, first_pair, end_pair,
    row, column, K, members, turn,
    W_IS_NK: gl.constexpr, STEP: gl.constexpr, BLOCK_M: gl.constexpr, BLOCK_N: gl.constexpr,
    STAGES: gl.constexpr, COLUMNS: gl.constexpr,
):  # fmt: skip
    """The fetching warp's part. How much of K is done with it, and the turn behind."""
    turn = _fetch_others(
        x_desc, a_desc, x_ring, stored, full, empty, pairs, first_pair + 1,
        gl.where(makes, end_pair, 0), row, K, members, turn, STEP, BLOCK_M, STAGES, COLUMNS,
    )  # fmt: skip
    k_done = gl.where(makes & (first_pair < end_pair), K, 0)
    for k in range(0, k_done, _PART):
        at = turn % STAGES
        mbarrier.wait(empty.index(at), ((turn // STAGES) & 1) ^ 1)
        mbarrier.expect(full.index(at), (BLOCK_M + BLOCK_N + COLUMNS) * _PART * 2)
        tma.async_copy_global_to_shared(x_desc, [row, k], full.index(at), x_ring.index(at))
        fetch_weight(
            w_desc, w_ring.index(at), full.index(at), k, column, 0, W_IS_NK, BLOCK_N, _PART, False
        )
        _fetch_a(x_desc, a_desc, stored, full, at, pairs, first_pair, k, K, members, STEP, COLUMNS)
        turn += 1
    return k_done, turn


@gluon.jit
def multiply_along(
    acc, x_desc, x_ring, w_ring, stored, full, empty, s, s_p, flag, pairs, segments, factors, makes,
    first_pair, end_pair, K, members, width, turn,
    W_IS_NK: gl.constexpr, STEP: gl.constexpr, BLOCK_M: gl.constexpr, STAGES: gl.constexpr,
    COLUMNS: gl.constexpr,
):  # fmt: skip
    """The other warps' part: what the tile has come to as well."""
    layout: gl.constexpr = gl.NVMMADistributedLayout(
        version=[3, 0], warps_per_cta=[gl.num_warps(), 1], instr_shape=[16, COLUMNS, 16]
    )
    dtype: gl.constexpr = x_desc.dtype
    turn = _multiply_others(
        x_desc, x_ring, stored, full, empty, s, s_p, pairs, segments, factors, first_pair + 1,
        gl.where(makes, end_pair, 0), K, members, width, turn,
        STEP, BLOCK_M, STAGES, COLUMNS, layout,
    )  # fmt: skip
    k_done = gl.where(makes & (first_pair < end_pair), K, 0)
    acc_s = gl.zeros([BLOCK_M, COLUMNS], gl.float32, layout)
    for k in range(0, k_done, _PART):
        at = turn % STAGES
        mbarrier.wait(full.index(at), (turn // STAGES) & 1)
        w = w_ring.index(at).permute((1, 0)) if W_IS_NK else w_ring.index(at)
        acc = warpgroup_mma(x_ring.index(at), w, acc, is_async=True)
        a = _a_part(stored, at, x_desc, COLUMNS)
        acc_s = warpgroup_mma(x_ring.index(at), a, acc_s, is_async=True)
        acc, acc_s = warpgroup_mma_wait(num_outstanding=2, deps=(acc, acc_s))
        thread_barrier()
        mbarrier.arrive(empty.index((turn + STAGES - 1) % STAGES), pred=k > 0)
        turn += 1
    acc, acc_s = warpgroup_mma_wait(num_outstanding=0, deps=(acc, acc_s))
    if makes:
        if first_pair < end_pair:
            _store_s(
                acc_s, s, s_p, pairs, segments, factors, first_pair, members, width,
                STEP, BLOCK_M, COLUMNS, layout, dtype,
            )  # fmt: skip
        publish(flag)
    return acc, k_done, turn
