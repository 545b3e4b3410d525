"""Gradients of A and B: for each segment, its rows of a narrow matrix times those of a wide one.

Straight into the fp32 gradient bank. One program owns its elements and walks all rows of the
segment in order, so the sum does not depend on what else is in the batch.
"""

import triton
import triton.language as tl
from torch import Tensor

from alto_kernels.lora_linear.kernel.mask import keep
from alto_kernels.lora_linear.tables import Tables

_BLOCK_T, _BLOCK_C, _WARPS, _STAGES = 64, 128, 4, 3
_MAX_BLOCK_J = 64
_MIN_PROGRAMS = 512  # below this the blocks of columns are halved


def add_outer(
    s_PJ: Tensor,
    x_TC: Tensor,
    grad_RC: Tensor,
    spans: Tensor,
    tables: Tables,
    *,
    shared: bool,
    number: int = -1,
) -> None:
    """grad[ranks, columns] (+)= s^T dropout(x), for each segment and member.

    `spans`, `shared` and `number` are those of `shrink`.
    """
    members = spans.shape[0]
    dropout = number >= 0 and tables.has_dropout
    shared = shared and not dropout
    width = tables.rank_width
    columns = width * members if shared else width
    block_j = min(_MAX_BLOCK_J, max(16, triton.next_power_of_2(columns)))
    chunks = triton.cdiv(columns, block_j)
    parts = chunks * (1 if shared else members)
    narrow = parts * triton.cdiv(x_TC.shape[1], _BLOCK_C) * tables.num_segments < _MIN_PROGRAMS
    block_c = _BLOCK_C // 2 if narrow else _BLOCK_C
    # Programs that read the same part of x are neighbours, so it passes through the cache.
    grid = (parts, triton.cdiv(x_TC.shape[1], block_c), tables.num_segments)
    _outer_kernel[grid](
        s_PJ, x_TC, grad_RC, spans, tables.segments, tables.factors, tables.adds, number,
        members, width, chunks, s_PJ.stride(0), x_TC.stride(0), grad_RC.stride(0),
        STEP=tables.rank_step, SHARED=shared, DROPOUT=dropout,
        BLOCK_T=_BLOCK_T, BLOCK_J=block_j, BLOCK_C=block_c, num_warps=_WARPS, num_stages=_STAGES,
    )  # fmt: skip


@triton.jit(do_not_specialize=["number"])  # each layer has another
def _outer_kernel(
    s, x, grad, spans, segments, factors, adds, number, members, width, chunks,
    s_p, x_t, grad_r,
    STEP: tl.constexpr, SHARED: tl.constexpr, DROPOUT: tl.constexpr,
    BLOCK_T: tl.constexpr, BLOCK_J: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """BLOCK_C columns of BLOCK_J rows of one segment's gradient."""
    segment = segments + 8 * tl.program_id(2)
    first, end, shift = tl.load(segment), tl.load(segment + 1), tl.load(segment + 4)
    first_rank, rank = tl.load(segment + 2), tl.load(segment + 3)
    ranks = tl.cdiv(rank, STEP) * STEP
    chunk = tl.program_id(0) % chunks
    owner = tl.program_id(0) // chunks
    used = ranks * members if SHARED else ranks
    span = spans + 3 * owner
    x_column = tl.multiple_of(tl.load(span), 8)
    columns = tl.multiple_of(tl.load(span + 2), 8)
    if (chunk * BLOCK_J >= used) | (tl.program_id(1) * BLOCK_C >= columns):
        return
    j = chunk * BLOCK_J + tl.arange(0, BLOCK_J)
    member = j // ranks if SHARED else j * 0 + owner
    r = j % ranks if SHARED else j
    in_j = j < used
    in_r = in_j & (r < rank)
    # Ranks are filled up to whole steps, so 16 neighbours stay together; zeros fill the steps.
    s_column = tl.max_contiguous(tl.multiple_of(member * width + r, 16), 16)

    c = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    in_c = c < columns
    acc = tl.zeros([BLOCK_C, BLOCK_J], tl.float32)
    for t0 in range(first, end, BLOCK_T):
        t = t0 + tl.arange(0, BLOCK_T)
        in_t = t < end
        s_tj = s + (t + shift).to(tl.int64)[:, None] * s_p + s_column[None, :]
        x_tc = x + t.to(tl.int64)[:, None] * x_t + (x_column + c)[None, :]
        b_s = tl.load(s_tj, mask=in_t[:, None] & in_j[None, :], other=0.0)
        b_x = tl.load(x_tc, mask=in_t[:, None] & in_c[None, :], other=0.0)
        if DROPOUT:
            kept = keep(t, segment, number + owner, tl.program_id(1) * BLOCK_C, BLOCK_C)
            b_x = tl.where(kept, b_x, 0.0)
        acc = tl.dot(tl.trans(b_x), b_s, acc, input_precision="ieee")
    if DROPOUT:
        acc *= tl.load(factors + 2 * tl.program_id(2) + 1)
    bank_column = tl.load(spans + 3 * member + 1, mask=in_r, other=0)
    bank_column = tl.multiple_of(bank_column, 8)
    grad_cj = grad + ((first_rank + r).to(tl.int64) * grad_r + bank_column)[None, :] + c[:, None]
    mask = in_c[:, None] & in_r[None, :]
    adds_here = tl.load(adds + tl.program_id(2)) > 0
    tl.store(grad_cj, tl.load(grad_cj, mask=mask & adds_here, other=0.0) + acc, mask=mask)
