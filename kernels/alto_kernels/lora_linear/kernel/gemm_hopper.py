"""`gemm` for Hopper cards, in Gluon: a warp of its own fetches what the others multiply.

The fetching warp walks over the same tiles and K steps and runs ahead of the others by the depth
of a ring of buffers. The adapters' steps pass through that ring like all others, and the first
steps of the next tile are fetched while the last one is being stored. `s` may be made inside of
this kernel as well (`hopper_shrink.py`, `hopper_along.py`); where it is not, programs begin while
its last parts are made, for x and the weight were there before that began, and wait where they
first meet it.
What it stores beside or in place of its tiles where gate and up are near: `hopper_gates.py`.
"""

from functools import lru_cache

import torch
import triton
from torch import Tensor
from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.hopper import (
    fence_async_shared,
    mbarrier,
    tma,
    warpgroup_mma,
    warpgroup_mma_wait,
)
from triton.experimental.gluon.nvidia.hopper import TensorDescriptor

from alto_kernels.lora_linear.kernel.device import num_programs
from alto_kernels.lora_linear.kernel.hopper_along import fetch_along, multiply_along
from alto_kernels.lora_linear.kernel.hopper_flags import (
    thread_barrier,
    wait_for,
    wait_for_launches,
)
from alto_kernels.lora_linear.kernel.hopper_gates import fetch_gates, store, store_gradients
from alto_kernels.lora_linear.kernel.hopper_shrink import (
    chunks_of,
    fetch_shrink,
    multiply_shrink,
    producers_of,
)
from alto_kernels.lora_linear.kernel.hopper_tiles import (
    fetch_bank,
    fetch_weight,
    members_of,
    tile_of,
)
from alto_kernels.lora_linear.tables import TILE_ROWS, Tables

__all__ = ["gemm_hopper"]

_BLOCK_K, _STAGES, _WARPS, _GROUP_M = 64, 3, 8, 16
_FETCH_REGISTERS = 40


def gemm_hopper(
    y_TN: Tensor,
    x_TK: Tensor,
    w: Tensor,
    bias_N: Tensor | None,
    s_PJ: Tensor,
    bank_RC: Tensor,
    ends: Tensor | None,
    tables: Tables,
    *,
    w_is_nk: bool,
    members: int,
    block_n: int,
    a_RC: Tensor | None = None,
    along: bool = False,
    gated_TF: Tensor | None = None,
    gates_TO: Tensor | None = None,
) -> None:
    """What `gemm` computes. With `a_RC` first s = scale * x A^T, as `shrink` has it; with
    `gated_TF` last silu(gate) * up, of y's two halves. With `gates_TO`, gate and up side by side,
    what is computed is the gradient of silu(gate) * up, and y becomes those of gate and of up.

    For the first `block_n` must be 256, and `producers_of` more than 0, or, `along` the product,
    `fits_along`; for the others `block_n` must divide the columns of gate.
    """
    (T, K), N = x_TK.shape, y_TN.shape[1] if gates_TO is None else y_TN.shape[1] // 2
    step, device = tables.rank_step, x_TK.device
    most = num_programs(device)
    tiles = tables.num_tiles * triton.cdiv(N, block_n)
    # No more programs than their rounds of tiles need: what runs beside finds room.
    programs = triton.cdiv(tiles, triton.cdiv(tiles, most))
    a_desc = flags = None
    producers, chunks, columns, items = 0, 0, _BLOCK_K, 0
    gated = gated_TF is not None
    piece = block_n // 2 if gated else block_n  # columns of one copy
    gates = gated_TF if gates_TO is None else gates_TO
    gates_desc = None if gates is None else _descriptor(gates, (TILE_ROWS, block_n // 2))
    if a_RC is not None:
        chunks, columns = chunks_of(tables, members)
        items = tables.num_tiles if along else tables.num_pairs * chunks
        producers = 0 if along else producers_of(tables, members, K, N, most)
        programs = max(programs, tables.num_tiles) if along else most
        a_desc = _descriptor(a_RC, (step, _BLOCK_K))
        flags = torch.zeros(items, dtype=torch.int32, device=device)
    _gemm_kernel[(programs,)](
        _descriptor(x_TK, (TILE_ROWS, _BLOCK_K)),
        _descriptor(w, (piece, _BLOCK_K) if w_is_nk else (_BLOCK_K, piece)),
        _descriptor(s_PJ, (TILE_ROWS, step)),
        _descriptor(bank_RC, (step, piece)),
        _descriptor(y_TN, (TILE_ROWS, block_n // 2)),
        a_desc, gates_desc, bias_N, s_PJ, flags, ends, tables.tile_pairs, tables.pairs,
        tables.segments, tables.factors, T, N, K, members, tables.rank_width, s_PJ.stride(0),
        items, chunks, producers,
        W_IS_NK=w_is_nk, HAS_BIAS=bias_N is not None, HAS_ENDS=ends is not None, STEP=step,
        BLOCK_M=TILE_ROWS, BLOCK_N=block_n, BLOCK_K=_BLOCK_K, GROUP_M=_GROUP_M, STAGES=_STAGES,
        MAKES_S=a_RC is not None and not along, ALONG=along, COLUMNS=columns, GATED=gated,
        GATES=gates_TO is not None, FETCH_REGISTERS=_FETCH_REGISTERS,
        num_warps=_WARPS, launch_pdl=True,
    )  # fmt: skip


def _descriptor(tensor: Tensor, block: tuple[int, int]) -> TensorDescriptor:
    layout = _layout(block, tensor.dtype)
    return TensorDescriptor(tensor, list(tensor.shape), list(tensor.stride()), list(block), layout)


@lru_cache
def _layout(block: tuple[int, int], dtype: torch.dtype) -> gl.NVMMASharedLayout:
    element = gl.bfloat16 if dtype == torch.bfloat16 else gl.float16
    return gl.NVMMASharedLayout.get_default_for(list(block), element)


@gluon.jit
def _wait_for_s(flags, tiles_done, first, end, items, MAKES_S: gl.constexpr):
    """Made inside, for the first tile's own items, for all with the second: asking takes a
    microsecond. Else for the launches that made it."""
    if MAKES_S:
        if tiles_done == 0:
            wait_for(flags, first, end)
        elif tiles_done == 1:
            wait_for(flags, 0, items)
    elif tiles_done == 0:
        wait_for_launches()


@gluon.jit
def _wait_if(IS_HERE: gl.constexpr):
    if IS_HERE:
        wait_for_launches()


@gluon.jit
def _fetch(
    x_desc, w_desc, s_desc, bank_desc, y_desc, a_desc, gates_desc, x_ring, w_ring, stored, full,
    empty, bias, s, flags, ends, tile_pairs, pairs, segments, factors,
    T, N, K, members, width, s_p, items, chunks, producers,
    W_IS_NK: gl.constexpr, HAS_BIAS: gl.constexpr, HAS_ENDS: gl.constexpr, STEP: gl.constexpr,
    BLOCK_M: gl.constexpr, BLOCK_N: gl.constexpr, BLOCK_K: gl.constexpr, GROUP_M: gl.constexpr,
    STAGES: gl.constexpr, MAKES_S: gl.constexpr, ALONG: gl.constexpr, COLUMNS: gl.constexpr,
    GATED: gl.constexpr, GATES: gl.constexpr,
):  # fmt: skip
    """One warp: operands of every step into the ring."""
    tiles_m, tiles_n = gl.cdiv(T, BLOCK_M), gl.cdiv(N, BLOCK_N)
    dtype: gl.constexpr = x_desc.dtype
    turn = 0
    _wait_if(MAKES_S or ALONG)
    if MAKES_S:
        turn = fetch_shrink(
            x_desc, a_desc, x_ring, w_ring, stored, full, empty, pairs, segments, K, members,
            items, chunks, producers, STEP, BLOCK_M, STAGES, COLUMNS,
        )  # fmt: skip
    # The last program takes the first tile: what is left over after whole rounds is not for those
    # that make s.
    last = gl.num_programs(0) - 1
    for tile in range(last - gl.program_id(0), tiles_m * tiles_n, last + 1):
        m, n, makes = tile_of(tile, tiles_m, tiles_n, GROUP_M, ALONG)
        row, column = m * BLOCK_M, n * (BLOCK_N // 2 if GATED else BLOCK_N)
        k_done = 0
        if ALONG:
            first_pair, end_pair = gl.load(tile_pairs + m), gl.load(tile_pairs + m + 1)
            k_done, turn = fetch_along(
                x_desc, w_desc, a_desc, x_ring, w_ring, stored, full, empty, pairs, makes,
                first_pair, end_pair, row, column, K, members, turn,
                W_IS_NK, STEP, BLOCK_M, BLOCK_N, STAGES, COLUMNS,
            )  # fmt: skip
        for k in range(k_done, K, BLOCK_K):
            at = turn % STAGES
            mbarrier.wait(empty.index(at), ((turn // STAGES) & 1) ^ 1)
            mbarrier.expect(full.index(at), (BLOCK_M + BLOCK_N) * BLOCK_K * 2)
            tma.async_copy_global_to_shared(x_desc, [row, k], full.index(at), x_ring.index(at))
            fetch_weight(
                w_desc, w_ring.index(at), full.index(at), k, column, N,
                W_IS_NK, BLOCK_N, BLOCK_K, GATED,
            )  # fmt: skip
            turn += 1
        first_member, end_member = members_of(column, ends, members, HAS_ENDS)
        if not ALONG:
            first_pair, end_pair = gl.load(tile_pairs + m), gl.load(tile_pairs + m + 1)
        first_item, end_item = (m, m + 1) if ALONG else (first_pair * chunks, end_pair * chunks)
        _wait_for_s(flags, tile // (last + 1), first_item, end_item, items, MAKES_S or ALONG)
        for pair in range(first_pair, end_pair):
            first_rank, rank = gl.load(pairs + 3 * pair + 1), gl.load(pairs + 3 * pair + 2)
            for member in range(first_member, end_member):
                bank_column = column if HAS_ENDS or GATED else column + member * N
                for r in range(0, rank, STEP):
                    at = turn % STAGES
                    left = x_ring.index(at)._reinterpret(dtype, [BLOCK_M, STEP], s_desc.layout)
                    mbarrier.wait(empty.index(at), ((turn // STAGES) & 1) ^ 1)
                    mbarrier.expect(full.index(at), (BLOCK_M + BLOCK_N) * STEP * 2)
                    tma.async_copy_global_to_shared(
                        s_desc, [pair * BLOCK_M, member * width + r], full.index(at), left
                    )
                    fetch_bank(
                        bank_desc, w_ring.index(at), full.index(at), first_rank + r, bank_column,
                        member, N, STEP, BLOCK_N, GATED,
                    )  # fmt: skip
                    turn += 1
        if GATES:
            turn = fetch_gates(
                gates_desc, w_ring, full, empty, turn, row, column, N, BLOCK_M, BLOCK_N // 2, STAGES
            )


@gluon.jit
def _biased(
    acc, bias, column, right_at, N, HAS_BIAS: gl.constexpr, BLOCK_N: gl.constexpr,
    layout: gl.constexpr,
):  # fmt: skip
    """With that of a tile's columns, whose right half may lie apart."""
    if HAS_BIAS:
        j = gl.arange(0, BLOCK_N, layout=gl.SliceLayout(0, layout))
        c = column + j % (BLOCK_N // 2) + j // (BLOCK_N // 2) * right_at
        acc += gl.expand_dims(gl.load(bias + c, mask=c < N, other=0.0).to(gl.float32), 0)
    return acc


@gluon.jit
def _multiply(
    x_desc, w_desc, s_desc, bank_desc, y_desc, a_desc, gates_desc, x_ring, w_ring, stored, full,
    empty, bias, s, flags, ends, tile_pairs, pairs, segments, factors,
    T, N, K, members, width, s_p, items, chunks, producers,
    W_IS_NK: gl.constexpr, HAS_BIAS: gl.constexpr, HAS_ENDS: gl.constexpr, STEP: gl.constexpr,
    BLOCK_M: gl.constexpr, BLOCK_N: gl.constexpr, BLOCK_K: gl.constexpr, GROUP_M: gl.constexpr,
    STAGES: gl.constexpr, MAKES_S: gl.constexpr, ALONG: gl.constexpr, COLUMNS: gl.constexpr,
    GATED: gl.constexpr, GATES: gl.constexpr,
):  # fmt: skip
    """The other warps: the products and the store."""
    tiles_m, tiles_n = gl.cdiv(T, BLOCK_M), gl.cdiv(N, BLOCK_N)
    dtype: gl.constexpr = x_desc.dtype
    layout: gl.constexpr = gl.NVMMADistributedLayout(
        version=[3, 0], warps_per_cta=[gl.num_warps(), 1], instr_shape=[16, BLOCK_N, 16]
    )
    half: gl.constexpr = BLOCK_N // 2
    # The columns of a tile's right half, behind those of its left.
    right_at = N // 2 if GATED else half
    turn = 0
    _wait_if(MAKES_S or ALONG)
    if MAKES_S:
        turn = multiply_shrink(
            x_desc, x_ring, w_ring, stored, full, empty, s, s_p, flags, pairs, segments, factors, K,
            members, width, items, chunks, producers, STEP, BLOCK_M, STAGES, COLUMNS,
        )  # fmt: skip
    last = gl.num_programs(0) - 1
    for tile in range(last - gl.program_id(0), tiles_m * tiles_n, last + 1):
        m, n, makes = tile_of(tile, tiles_m, tiles_n, GROUP_M, ALONG)
        row, column = m * BLOCK_M, n * (half if GATED else BLOCK_N)
        acc = gl.zeros([BLOCK_M, BLOCK_N], gl.float32, layout)
        k_done = 0
        if ALONG:
            first_pair, end_pair = gl.load(tile_pairs + m), gl.load(tile_pairs + m + 1)
            acc, k_done, turn = multiply_along(
                acc, x_desc, x_ring, w_ring, stored, full, empty, s, s_p, flags + m, pairs,
                segments, factors, makes, first_pair, end_pair, K, members, width, turn,
                W_IS_NK, STEP, BLOCK_M, STAGES, COLUMNS,
            )  # fmt: skip
        for k in range(k_done, K, BLOCK_K):
            at = turn % STAGES
            mbarrier.wait(full.index(at), (turn // STAGES) & 1)
            w = w_ring.index(at).permute((1, 0)) if W_IS_NK else w_ring.index(at)
            acc = warpgroup_mma(x_ring.index(at), w, acc, is_async=True)
            acc = warpgroup_mma_wait(num_outstanding=1, deps=(acc,))
            # All warps are past the step before this one: its buffers are free.
            thread_barrier()
            mbarrier.arrive(empty.index((turn + STAGES - 1) % STAGES), pred=k > 0)
            turn += 1

        first_member, end_member = members_of(column, ends, members, HAS_ENDS)
        if not ALONG:
            first_pair, end_pair = gl.load(tile_pairs + m), gl.load(tile_pairs + m + 1)
        for pair in range(first_pair, end_pair):
            rank = gl.load(pairs + 3 * pair + 2)
            for _ in range(first_member, end_member):
                for _ in range(0, rank, STEP):
                    at = turn % STAGES
                    left = x_ring.index(at)._reinterpret(dtype, [BLOCK_M, STEP], s_desc.layout)
                    right = w_ring.index(at)._reinterpret(dtype, [STEP, BLOCK_N], bank_desc.layout)
                    mbarrier.wait(full.index(at), (turn // STAGES) & 1)
                    acc = warpgroup_mma(left, right, acc, is_async=True)
                    acc = warpgroup_mma_wait(num_outstanding=1, deps=(acc,))
                    thread_barrier()
                    mbarrier.arrive(empty.index((turn + STAGES - 1) % STAGES))
                    turn += 1
        acc = warpgroup_mma_wait(num_outstanding=0, deps=(acc,))
        thread_barrier()
        mbarrier.arrive(empty.index((turn + STAGES - 1) % STAGES))
        # They may still read what was where y comes to lie.
        _wait_if(not (MAKES_S or ALONG))

        acc = _biased(acc, bias, column, right_at, N, HAS_BIAS, BLOCK_N, layout)
        left, right = acc.reshape([BLOCK_M, 2, half]).permute(0, 2, 1).split()
        if GATES:
            turn = store_gradients(
                y_desc, gates_desc, w_ring, stored, full, empty, turn, left, right, row, column, N,
                BLOCK_M, half, STAGES,
            )  # fmt: skip
        else:
            left, right = left.to(dtype), right.to(dtype)
            store(y_desc, gates_desc, stored, left, right, row, column, right_at, GATED)
    tma.store_wait(pendings=0)


# What differs from batch to batch: else each kind of number there would compile it anew.
@gluon.jit(do_not_specialize=["T", "items", "chunks", "producers"])
def _gemm_kernel(
    x_desc, w_desc, s_desc, bank_desc, y_desc, a_desc, gates_desc,
    bias, s, flags, ends, tile_pairs, pairs, segments, factors,
    T, N, K, members, width, s_p, items, chunks, producers,
    W_IS_NK: gl.constexpr, HAS_BIAS: gl.constexpr, HAS_ENDS: gl.constexpr, STEP: gl.constexpr,
    BLOCK_M: gl.constexpr, BLOCK_N: gl.constexpr, BLOCK_K: gl.constexpr, GROUP_M: gl.constexpr,
    STAGES: gl.constexpr, MAKES_S: gl.constexpr, ALONG: gl.constexpr, COLUMNS: gl.constexpr,
    GATED: gl.constexpr, GATES: gl.constexpr,
    FETCH_REGISTERS: gl.constexpr,
):  # fmt: skip
    dtype: gl.constexpr = x_desc.dtype
    x_ring = gl.allocate_shared_memory(dtype, [STAGES, BLOCK_M, BLOCK_K], x_desc.layout)
    block_w: gl.constexpr = [BLOCK_N, BLOCK_K] if W_IS_NK else [BLOCK_K, BLOCK_N]
    w_ring = gl.allocate_shared_memory(dtype, [STAGES] + block_w, w_desc.layout)  # noqa: RUF005 - Gluon takes no star
    stored = gl.allocate_shared_memory(dtype, [2, BLOCK_M, BLOCK_N // 2], y_desc.layout)
    full = gl.allocate_shared_memory(gl.int64, [STAGES, 1], mbarrier.MBarrierLayout())
    empty = gl.allocate_shared_memory(gl.int64, [STAGES, 1], mbarrier.MBarrierLayout())
    for i in gl.static_range(STAGES):
        mbarrier.init(full.index(i), count=1)
        mbarrier.init(empty.index(i), count=1)
    fence_async_shared()
    # The tuple is written twice: a name for it would turn its constants into tensors.
    gl.warp_specialize(
        [
            (_multiply, (
                x_desc, w_desc, s_desc, bank_desc, y_desc, a_desc, gates_desc, x_ring, w_ring,
                stored, full, empty, bias, s, flags, ends, tile_pairs, pairs, segments, factors,
                T, N, K, members, width, s_p, items, chunks, producers,
                W_IS_NK, HAS_BIAS, HAS_ENDS, STEP, BLOCK_M, BLOCK_N, BLOCK_K, GROUP_M, STAGES,
                MAKES_S, ALONG, COLUMNS, GATED, GATES,
            )),
            (_fetch, (
                x_desc, w_desc, s_desc, bank_desc, y_desc, a_desc, gates_desc, x_ring, w_ring,
                stored, full, empty, bias, s, flags, ends, tile_pairs, pairs, segments, factors,
                T, N, K, members, width, s_p, items, chunks, producers,
                W_IS_NK, HAS_BIAS, HAS_ENDS, STEP, BLOCK_M, BLOCK_N, BLOCK_K, GROUP_M, STAGES,
                MAKES_S, ALONG, COLUMNS, GATED, GATES,
            )),
        ],
        [1],
        [FETCH_REGISTERS],
    )  # fmt: skip
