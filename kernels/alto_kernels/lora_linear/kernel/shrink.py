"""s = scale * dropout(x) A^T into the blocks of the pairs, for all members of a group at once.

The same kernel makes ds = scale * dy B^T, where each member has columns of its own in dy.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.language.extra.cuda import gdc_launch_dependents

from alto_kernels.lora_linear.kernel.device import begins_early
from alto_kernels.lora_linear.kernel.mask import keep
from alto_kernels.lora_linear.tables import TILE_ROWS, Tables

_BLOCK_T, _BLOCK_I, _WARPS, _STAGES = 64, 128, 4, 4
_MAX_BLOCK_J, _WIDE_BLOCK_J = 128, 64
_WIDE_WARPS = 8  # of blocks of all rows of a pair
_FEW_STAGES = 3  # of wide blocks, which leave room for programs that run beside
_MIN_PROGRAMS = 120  # fewer leave multiprocessors without work


def shrink(
    x_TC: Tensor, bank_RC: Tensor, spans: Tensor, tables: Tables, *, shared: bool, number: int = -1
) -> Tensor:
    """(P, members * rank width): each member's own ranks, and zeros up to the next rank step.

    `spans` (members, 3) has for each member its first column in x and in the bank, and how many.
    With `shared` the members read the same columns of x, and x passes once for all of them.
    `number` of the first linear asks for dropout, which needs a pass for each member.
    """
    members = spans.shape[0]
    dropout = number >= 0 and tables.has_dropout
    shared = shared and not dropout
    width = tables.rank_width
    columns = width * members if shared else width
    block_j = min(_MAX_BLOCK_J, max(16, triton.next_power_of_2(columns)))
    s_PJ = torch.empty(
        tables.num_pairs * TILE_ROWS, width * members, dtype=x_TC.dtype, device=x_TC.device
    )
    parts, owners = triton.cdiv(columns, block_j), 1 if shared else members
    # All rows of a pair read the bank once where its part is as long as theirs of x.
    is_wide = block_j >= _WIDE_BLOCK_J and parts * tables.num_pairs * owners >= _MIN_PROGRAMS
    block_t = TILE_ROWS if is_wide else _BLOCK_T
    # Programs that read the same part of x are neighbours, so it passes through the cache.
    grid = (parts, tables.num_pairs * (TILE_ROWS // block_t), owners)
    _shrink_kernel[grid](
        x_TC, bank_RC, s_PJ, spans, tables.pairs, tables.segments, tables.factors, number, members,
        width, x_TC.stride(0), bank_RC.stride(0), s_PJ.stride(0),
        TILE=TILE_ROWS, STEP=tables.rank_step, SHARED=shared, DROPOUT=dropout,
        EARLY=begins_early(x_TC.device), BLOCK_T=block_t, BLOCK_J=block_j, BLOCK_I=_BLOCK_I,
        num_warps=_WIDE_WARPS if is_wide else _WARPS,
        num_stages=_FEW_STAGES if is_wide or block_j > _WIDE_BLOCK_J else _STAGES,
    )  # fmt: skip
    return s_PJ


@triton.jit(do_not_specialize=["number"])  # each layer has another
def _shrink_kernel(
    x, bank, s, spans, pairs, segments, factors, number, members, width,
    x_t, bank_r, s_p,
    TILE: tl.constexpr, STEP: tl.constexpr, SHARED: tl.constexpr, DROPOUT: tl.constexpr,
    EARLY: tl.constexpr, BLOCK_T: tl.constexpr, BLOCK_J: tl.constexpr, BLOCK_I: tl.constexpr,
):  # fmt: skip
    """BLOCK_T rows of one block and BLOCK_J of its columns (ranks of one or of all members)."""
    if EARLY:
        gdc_launch_dependents()  # the product takes the multiprocessors as they become free
    row = tl.program_id(1) * BLOCK_T
    pair = pairs + 3 * (row // TILE)
    first_rank, rank = tl.load(pair + 1), tl.load(pair + 2)
    ranks = tl.cdiv(rank, STEP) * STEP
    j = tl.program_id(0) * BLOCK_J + tl.arange(0, BLOCK_J)
    used = ranks * members if SHARED else ranks
    if tl.program_id(0) * BLOCK_J >= used:
        return
    member = j // ranks if SHARED else j * 0 + tl.program_id(2)
    r = j % ranks if SHARED else j
    in_r = (j < used) & (r < rank)
    span = spans + 3 * (0 if SHARED else tl.program_id(2))
    x_column = tl.multiple_of(tl.load(span), 8)
    columns = tl.multiple_of(tl.load(span + 2), 8)

    segment = segments + 8 * tl.load(pair)
    first, end, shift = tl.load(segment), tl.load(segment + 1), tl.load(segment + 4)
    p = row + tl.arange(0, BLOCK_T)
    t = p - shift
    in_t = (t >= first) & (t < end)
    if (row - shift >= end) | (row - shift + BLOCK_T <= first):
        columns = x_column * 0  # the block's rows of other segments are zero

    i = tl.arange(0, BLOCK_I)
    x_ti = x + t.to(tl.int64)[:, None] * x_t + (x_column + i)[None, :]
    bank_column = tl.load(spans + 3 * member + 1, mask=in_r, other=0)
    bank_column = tl.multiple_of(bank_column, 8)
    a_ij = bank + ((first_rank + r).to(tl.int64) * bank_r + bank_column)[None, :] + i[:, None]
    acc = tl.zeros([BLOCK_T, BLOCK_J], tl.float32)
    for i0 in range(0, columns, BLOCK_I):
        in_i = i < columns - i0
        b_x = tl.load(x_ti + i0, mask=in_t[:, None] & in_i[None, :], other=0.0)
        b_a = tl.load(a_ij + i0, mask=in_i[:, None] & in_r[None, :], other=0.0)
        if DROPOUT:
            kept = keep(t, segment, number + tl.program_id(2), i0, BLOCK_I)
            b_x = tl.where(kept, b_x, 0.0)
        acc = tl.dot(b_x, b_a, acc, input_precision="ieee")
    factor = factors + 2 * tl.load(pair)
    acc *= tl.load(factor)
    if DROPOUT:
        acc *= tl.load(factor + 1)
    # Ranks are filled up to whole steps, so 16 neighbours stay together.
    s_column = tl.max_contiguous(tl.multiple_of(member * width + r, 16), 16)
    s_pj = s + p.to(tl.int64)[:, None] * s_p + s_column[None, :]
    tl.store(s_pj, acc.to(s.dtype.element_ty), mask=(j < used)[None, :])
