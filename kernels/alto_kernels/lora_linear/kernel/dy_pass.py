"""One pass over dy for both of its products: ds = scale * dy B^T and dB (+)= s^T dy.

A program owns BLOCK_C columns of one segment: its part of dB is whole, and of ds it leaves a
partial sum over its columns, which a second kernel adds up in a fixed order.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait

from alto_kernels.lora_linear.kernel.device import begins_early
from alto_kernels.lora_linear.tables import TILE_ROWS, Tables

_BLOCK_T, _BLOCK_C, _WARPS, _STAGES = 32, 512, 8, 3
_MAX_BLOCK_J = 32
_MOST_SUM_BLOCKS, _SUM_ELEMENTS = 16, 256


def dy_pass(
    dy_TO: Tensor,
    s_PJ: Tensor,
    bank_RO: Tensor,
    grad_RO: Tensor,
    spans: Tensor,
    tables: Tables,
    widest: int,
) -> Tensor:
    """ds (P, members * rank width); dB goes to the bank. A member has at most `widest` outputs."""
    members, width = spans.shape[0], tables.rank_width
    block_j = min(_MAX_BLOCK_J, max(16, triton.next_power_of_2(width)))
    chunks, blocks = triton.cdiv(width, block_j), triton.cdiv(widest, _BLOCK_C)
    sum_rows = max(1, _SUM_ELEMENTS // block_j)
    sum_blocks = min(_MOST_SUM_BLOCKS, triton.next_power_of_2(blocks))
    early = begins_early(s_PJ.device)
    ds_PJ = s_PJ.new_empty(s_PJ.shape)
    parts = torch.empty(blocks, *s_PJ.shape, dtype=torch.float32, device=s_PJ.device)
    _dy_kernel[(blocks, tables.num_segments, chunks * members)](
        dy_TO, s_PJ, bank_RO, grad_RO, parts, spans, tables.segments, tables.adds, width, chunks,
        dy_TO.stride(0), s_PJ.stride(0), bank_RO.stride(0), grad_RO.stride(0), parts.stride(0),
        STEP=tables.rank_step, BLOCK_T=_BLOCK_T, BLOCK_J=block_j, BLOCK_C=_BLOCK_C,
        num_warps=_WARPS, num_stages=_STAGES,
    )  # fmt: skip
    _sum_kernel[(tables.num_pairs * (TILE_ROWS // sum_rows), chunks, members)](
        parts, ds_PJ, spans, tables.pairs, tables.segments, tables.factors, width,
        parts.stride(0), ds_PJ.stride(0),
        TILE=TILE_ROWS, STEP=tables.rank_step, BLOCK_B=sum_blocks, BLOCK_T=sum_rows,
        BLOCK_J=block_j, BLOCK_C=_BLOCK_C, EARLY=early, num_warps=4, launch_pdl=early,
    )  # fmt: skip
    return ds_PJ


@triton.jit
def _dy_kernel(
    dy, s, bank, grad, parts, spans, segments, adds, width, chunks,
    dy_t, s_p, bank_r, grad_r, parts_b,
    STEP: tl.constexpr, BLOCK_T: tl.constexpr, BLOCK_J: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """BLOCK_C columns of one member, BLOCK_J ranks of one segment."""
    segment = segments + 8 * tl.program_id(1)
    first, end, shift = tl.load(segment), tl.load(segment + 1), tl.load(segment + 4)
    first_rank, rank = tl.load(segment + 2), tl.load(segment + 3)
    chunk, member = tl.program_id(2) % chunks, tl.program_id(2) // chunks
    span = spans + 3 * member
    column, columns = tl.multiple_of(tl.load(span), 8), tl.multiple_of(tl.load(span + 2), 8)
    block = tl.program_id(0)
    used = tl.cdiv(rank, STEP) * STEP
    if (chunk * BLOCK_J >= used) | (block * BLOCK_C >= columns):
        return
    j = chunk * BLOCK_J + tl.arange(0, BLOCK_J)
    in_j, in_r = j < used, j < rank
    c = block * BLOCK_C + tl.arange(0, BLOCK_C)
    in_c = c < columns

    row_j = (first_rank + j).to(tl.int64)
    b_cj = bank + (row_j * bank_r + column)[None, :] + c[:, None]
    b_b = tl.load(b_cj, mask=in_c[:, None] & in_r[None, :], other=0.0)
    acc = tl.zeros([BLOCK_C, BLOCK_J], tl.float32)
    for t0 in range(first, end, BLOCK_T):
        t = t0 + tl.arange(0, BLOCK_T)
        in_t = t < end
        p = (t + shift).to(tl.int64)
        dy_tc = dy + t.to(tl.int64)[:, None] * dy_t + (column + c)[None, :]
        s_tj = s + p[:, None] * s_p + (member * width + j)[None, :]
        b_dy = tl.load(dy_tc, mask=in_t[:, None] & in_c[None, :], other=0.0)
        b_s = tl.load(s_tj, mask=in_t[:, None] & in_j[None, :], other=0.0)
        part = tl.dot(b_dy, b_b, input_precision="ieee")
        acc = tl.dot(tl.trans(b_dy), b_s, acc, input_precision="ieee")
        part_tj = parts + block.to(tl.int64) * parts_b + p[:, None] * s_p
        part_tj += (member * width + j)[None, :]
        tl.store(part_tj, part, mask=in_t[:, None] & in_j[None, :])
    grad_cj = grad + ((first_rank + j).to(tl.int64) * grad_r + column)[None, :] + c[:, None]
    mask = in_c[:, None] & in_r[None, :]
    adds_here = tl.load(adds + tl.program_id(1)) > 0
    tl.store(grad_cj, tl.load(grad_cj, mask=mask & adds_here, other=0.0) + acc, mask=mask)


@triton.jit
def _sum_kernel(
    parts, ds, spans, pairs, segments, factors, width, parts_b, ds_p,
    TILE: tl.constexpr, STEP: tl.constexpr, BLOCK_B: tl.constexpr, BLOCK_T: tl.constexpr,
    BLOCK_J: tl.constexpr, BLOCK_C: tl.constexpr, EARLY: tl.constexpr,
):  # fmt: skip
    """BLOCK_T rows of one block of ds, BLOCK_J ranks of one member; zero outside of the segment."""
    if EARLY:
        gdc_launch_dependents()
    row = tl.program_id(0) * BLOCK_T
    pair = pairs + 3 * (row // TILE)
    used = tl.cdiv(tl.load(pair + 2), STEP) * STEP
    member = tl.program_id(2)
    if tl.program_id(1) * BLOCK_J >= used:
        if EARLY:
            gdc_wait()  # what follows may count on all that was launched before
        return
    segment = segments + 8 * tl.load(pair)
    first, end, shift = tl.load(segment), tl.load(segment + 1), tl.load(segment + 4)
    blocks = tl.cdiv(tl.load(spans + 3 * member + 2), BLOCK_C)
    p = row + tl.arange(0, BLOCK_T)
    in_t = (p - shift >= first) & (p - shift < end)
    j = tl.program_id(1) * BLOCK_J + tl.arange(0, BLOCK_J)
    in_j = j < used
    element = p.to(tl.int64)[:, None] * ds_p + (member * width + j)[None, :]
    factor = tl.load(factors + 2 * tl.load(pair))
    if EARLY:
        gdc_wait()  # for the parts; the tables were there before
    total = tl.zeros([BLOCK_T, BLOCK_J], tl.float32)
    for b0 in range(0, blocks, BLOCK_B):
        b = b0 + tl.arange(0, BLOCK_B)
        part = parts + b.to(tl.int64)[:, None, None] * parts_b + element[None, :, :]
        mask = (b < blocks)[:, None, None] & in_t[None, :, None] & in_j[None, None, :]
        total += tl.sum(tl.load(part, mask=mask, other=0.0), axis=0)
    total *= factor
    tl.store(ds + element, total.to(ds.dtype.element_ty), mask=in_j[None, :])
