"""The frozen product and the adapters' in one persistent kernel: y = x W + s B.

A pair's block of `s` meets its adapter's rows of the bank in a few more K steps of the same
accumulator, so the adapters' part of y never exists by itself. One program for each multiprocessor
walks over tiles of y; all operands come through descriptors made on the host.
"""

import triton
import triton.language as tl
from torch import Tensor
from triton.tools.tensor_descriptor import TensorDescriptor

from alto_kernels.lora_linear.kernel.device import num_programs
from alto_kernels.lora_linear.tables import TILE_ROWS, Tables

__all__ = ["gemm"]


_BLOCK_K, _STAGES, _WARPS, _GROUP_M = 64, 3, 8, 8


def gemm(
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
) -> None:
    """y (T, N) = x W + bias + the pairs' blocks of s times their rows of the bank.

    `w` is (N, K) or (K, N) in memory, as `w_is_nk` says. With `ends` (members, the last column of
    each in N) a column belongs to one member and the bank's columns are those of y; without, every
    member adds to all columns, and its columns of the bank are N wide.
    """
    (T, K), N = x_TK.shape, y_TN.shape[1]
    block_w = [block_n, _BLOCK_K] if w_is_nk else [_BLOCK_K, block_n]
    step = tables.rank_step
    programs = num_programs(x_TK.device)
    _gemm_kernel[(min(programs, triton.cdiv(T, TILE_ROWS) * triton.cdiv(N, block_n)),)](
        _descriptor(x_TK, [TILE_ROWS, _BLOCK_K]),
        _descriptor(w, block_w),
        _descriptor(s_PJ, [TILE_ROWS, step]),
        _descriptor(bank_RC, [step, block_n]),
        _descriptor(y_TN, [TILE_ROWS, block_n // 2]),
        bias_N, ends, tables.tile_pairs, tables.pairs, T, N, K, members, tables.rank_width,
        programs,
        W_IS_NK=w_is_nk, HAS_BIAS=bias_N is not None, HAS_ENDS=ends is not None, STEP=step,
        BLOCK_M=TILE_ROWS, BLOCK_N=block_n, BLOCK_K=_BLOCK_K,
        GROUP_M=_GROUP_M,
        num_warps=_WARPS, num_stages=_STAGES,
    )  # fmt: skip


def _descriptor(tensor: Tensor, block: list[int]) -> TensorDescriptor:
    return TensorDescriptor(tensor, list(tensor.shape), list(tensor.stride()), block)


@triton.jit(do_not_specialize=["T", "programs"])
def _gemm_kernel(
    x_desc, w_desc, s_desc, bank_desc, y_desc, bias, ends, tile_pairs, pairs, T, N, K, members,
    width, programs,
    W_IS_NK: tl.constexpr, HAS_BIAS: tl.constexpr, HAS_ENDS: tl.constexpr, STEP: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr, GROUP_M: tl.constexpr,
):  # fmt: skip
    tiles_m, tiles_n = tl.cdiv(T, BLOCK_M), tl.cdiv(N, BLOCK_N)
    k_tiles = tl.cdiv(K, BLOCK_K)
    for tile in tl.range(tl.program_id(0), tiles_m * tiles_n, programs):
        # GROUP_M rows of tiles share their columns of W while those are in the cache.
        group = tile // (GROUP_M * tiles_n)
        rows = tl.minimum(tiles_m - group * GROUP_M, GROUP_M)
        m = group * GROUP_M + (tile % (GROUP_M * tiles_n)) % rows
        n = (tile % (GROUP_M * tiles_n)) // rows
        row, column = m * BLOCK_M, n * BLOCK_N
        first_pair, end_pair = tl.load(tile_pairs + m), tl.load(tile_pairs + m + 1)

        acc = tl.zeros([BLOCK_M, BLOCK_N], tl.float32)
        for k in range(k_tiles):
            b_x = x_desc.load([row, k * BLOCK_K])
            if W_IS_NK:
                b_w = w_desc.load([column, k * BLOCK_K]).T
            else:
                b_w = w_desc.load([k * BLOCK_K, column])
            acc = tl.dot(b_x, b_w, acc, input_precision="ieee")

        first_member, end_member = 0, members
        if HAS_ENDS:
            for member in range(members - 1):
                first_member += (column >= tl.load(ends + member)).to(tl.int32)
            end_member = first_member + 1
        for pair in range(first_pair, end_pair):
            first_rank, rank = tl.load(pairs + 3 * pair + 1), tl.load(pairs + 3 * pair + 2)
            for member in range(first_member, end_member):
                bank_column = column if HAS_ENDS else column + member * N
                for r in tl.range(0, rank, STEP, num_stages=1):
                    b_s = s_desc.load([pair * BLOCK_M, member * width + r])
                    b_b = bank_desc.load([first_rank + r, bank_column])
                    acc = tl.dot(b_s, b_b, acc, input_precision="ieee")

        if HAS_BIAS:
            c = column + tl.arange(0, BLOCK_N)
            acc += tl.load(bias + c, mask=c < N, other=0.0).to(tl.float32)[None, :]
        halves = tl.permute(tl.reshape(acc, (BLOCK_M, 2, BLOCK_N // 2)), (0, 2, 1))
        left, right = tl.split(halves)
        y_desc.store([row, column], left.to(y_desc.dtype))
        y_desc.store([row, column + BLOCK_N // 2], right.to(y_desc.dtype))
